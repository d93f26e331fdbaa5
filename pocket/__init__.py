"""The procedural captioned worlds and the recipes that train the pocket models from them.

Nothing here is needed to serve the studio: the trained weights are shipped under `assets/pocket/`. `python -m pocket`
retrains them. Importing this package imports no torch; the recipes do.
"""
