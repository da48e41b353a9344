//! What `sandhog top` shows: the queue at one moment ([`sample`]), how somebody wants to see it ([`state`]) and the
//! screen that comes of both ([`view`]). It reads; it changes nothing in the queue.

pub(crate) mod sample;
pub(crate) mod state;
pub(crate) mod view;
