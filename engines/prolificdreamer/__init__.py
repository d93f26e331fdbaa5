"""ProlificDreamer: text to 3D by variational score distillation."""
