//! The binding: convert, delegate, convert back. The only place that knows Node-API.
//!
//! Nothing here blocks the JS thread, and no method is `async` on `&self` (it crashes when a worker is
//! terminated in mid-flight): a method clones what it needs, and [`js_thread::promise`] runs the rest.

mod choice;
mod error;
mod federation_hub;
mod federation_hub_server;
mod hub_limits;
mod hub_options;
mod js_driver;
mod js_resolver;
mod js_thread;
mod js_tokens;
mod log;
mod migration;
mod operator;
mod options;
mod raw;
mod revocation;
