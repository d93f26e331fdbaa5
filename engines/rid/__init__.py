"""RID: portraits protected against personalisation in one forward pass."""
