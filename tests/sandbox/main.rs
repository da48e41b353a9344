//! The sandbox in real containers.

mod cell_between;
mod cell_displays;
mod cell_ends;
mod cell_exits;
mod cell_fixture;
mod cell_frames;
mod cell_limits;
mod cell_network;
mod cell_output;
mod cell_python;
mod cell_streams;
mod cell_walls;
mod cell_warm;
mod engine;
mod keeper_connection;
mod keeper_ends;
mod keeper_fixture;
mod keeper_hostile;
mod keeper_requests;
mod keeper_user_namespace;
mod keeper_walls;
