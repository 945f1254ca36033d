//! The one seam: what the reconciler needs of the machine. Implemented by the supervisor, and by a simulation in tests.
