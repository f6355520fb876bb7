//! Live stacks: what the engine has and what is to become of it. Labels and the configuration are read into one policy for each
//! volume ([`survey`]), Compose projects are put together ([`stacks`]), and what has to be captured at one moment is found
//! with the containers that have to be held for it ([`groups`]); these are held ([`still`]) while it is captured ([`capture`]).

pub mod binds;
pub mod capture;
mod compat;
pub mod glob;
pub mod groups;
pub mod hooks;
pub mod keep;
pub mod keys;
pub mod labels;
mod mounts;
pub mod nearest;
pub mod policy;
pub mod presets;
pub mod rules;
pub mod schedule;
pub mod settings;
pub mod size;
mod speech;
pub mod stacks;
pub mod still;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod values;
