//! Text to `model`: spanned tree, interpolation, include, extends, merge, validation, normalisation. Pure but for reading files.
