//! Rules for the checkout itself, one file for each subject.

mod code_map;
mod crates;
mod imports;
mod language;
mod length;
mod lexer;
mod links;
mod lua;
mod manifests;
mod names;
mod sandbox_provider;
mod self_contained;
mod tree;
