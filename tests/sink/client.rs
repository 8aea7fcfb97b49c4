//! The example client against the real sink.
