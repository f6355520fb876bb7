//! Docker volumes as sources and targets: which there are, where their bytes are, what the engine knows of them, and making a
//! new one to restore into. What is read here is read by the host's own path, which has to be proved to be the volume's:
//! an empty or foreign folder would make a perfect, useless snapshot.

pub mod access;
pub mod discovery;
pub mod facts;
pub mod host_path;
pub mod recreate;
pub mod spelling;
