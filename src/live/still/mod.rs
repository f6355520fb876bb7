//! Live containers: holding them still for a capture, and seeing to it that nothing stays frozen or stopped, whatever
//! becomes of us.
//!
//! Whatever is done to a container is first written to a journal on this host ([`journal`]), whose lock the kernel drops
//! when this process ends; the next command that finds it unlocked undoes what it names ([`recover`]).

pub mod freeze;
pub mod hold;
mod ice;
pub mod journal;
pub mod order;
pub mod own;
pub mod recover;
pub mod stop;
mod undo;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod freeze_tests;
#[cfg(all(test, feature = "docker"))]
#[allow(clippy::unwrap_used)]
mod real_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod recover_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod stop_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod testing;
