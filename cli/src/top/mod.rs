//! The view of `sandhog top`: a snapshot of the queue ([`sample`]), the user's choices for the view
//! ([`state`]), and the screen drawn from both ([`view`]). It only reads the queue.

pub(crate) mod sample;
pub(crate) mod state;
pub(crate) mod view;
