//! Arguments to library calls: one file a command.

pub mod watch;
