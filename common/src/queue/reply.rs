//! Reading Redis' answers into our own types.
