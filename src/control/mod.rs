//! What the command line and the supervisor say to each other over the control socket. Plain data and its framing.
