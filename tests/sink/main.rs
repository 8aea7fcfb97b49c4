//! The sinks from outside: real sockets, real files, the example client.

mod client;
mod files;
mod http;
mod material;
mod pictures;
mod socket;
