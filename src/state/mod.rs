//! Where things lie on disk, and the records kept there. Versioned, replaced atomically.
