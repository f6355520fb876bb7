//! The scripted engine's answers.

use std::io::{Cursor, Read};
use std::time::Duration;

use super::state::runs;
use super::{FakeEngine, FakeExec, FakeState, lock};
use crate::docker::exec::Tail;
use crate::docker::{
    Attached, ContainerDetail, ContainerInfo, Engine, EngineInfo, ExecOutcome, ExecSpec, ImageInfo, NetworkInfo, NewContainer, NewVolume,
    VolumeInfo, VolumeList, check_container_id, check_image_reference, check_volume_name, no_such_image, no_such_volume,
};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// How much of a command's stdout is handed over at once, so that callers cannot rely on whole lines.
const FRAME_BYTES: usize = 1000;

impl Engine for FakeEngine {
    fn info(&self) -> Result<EngineInfo> {
        self.answer("info".into(), |state| Ok(state.info.clone()))
    }

    fn volumes(&self) -> Result<VolumeList> {
        self.answer("volumes".into(), |state| Ok(VolumeList { volumes: state.volumes.clone(), warnings: state.warnings.clone() }))
    }

    fn volume(&self, name: &str) -> Result<VolumeInfo> {
        check_volume_name(name)?;
        self.answer(format!("volume {name}"), |state| known_volume(state, name))
    }

    fn containers(&self) -> Result<Vec<ContainerInfo>> {
        self.answer("containers".into(), |state| Ok(state.containers.clone()))
    }

    fn put_volume(&self, new: &NewVolume) -> Result<VolumeInfo> {
        check_volume_name(&new.name)?;
        self.answer(format!("put_volume {}", new.name), |state| {
            if let Ok(old) = known_volume(state, &new.name) {
                return Ok(old);
            }
            state.add_volume(VolumeInfo {
                name: new.name.clone(),
                driver: new.driver.clone(),
                scope: "local".into(),
                labels: new.labels.clone(),
                options: new.options.clone(),
                ..VolumeInfo::default()
            });
            known_volume(state, &new.name)
        })
    }

    fn remove_volume(&self, name: &str) -> Result<()> {
        check_volume_name(name)?;
        self.answer(format!("remove_volume {name}"), |state| {
            let at = state.volumes.iter().position(|volume| volume.name == name).ok_or_else(|| no_such_volume(name))?;
            if state.containers.iter().any(|container| container.mounts.iter().any(|mount| mount.volume.as_deref() == Some(name))) {
                return Err(Error::new(ErrorKind::Busy, "the volume is in use").on(name));
            }
            state.volumes.remove(at);
            match &state.folder {
                Some(folder) => match std::fs::remove_dir_all(folder.join("volumes").join(name)) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    other => other.context(ErrorKind::Docker, "cannot remove a volume's folder", name),
                },
                None => Ok(()),
            }
        })
    }

    fn container(&self, id: &str) -> Result<ContainerDetail> {
        check_container_id(id)?;
        self.answer(format!("container {id}"), |state| state.detail(id))
    }

    fn pause(&self, id: &str, deadline: Duration) -> Result<()> {
        check_container_id(id)?;
        self.answer_within(format!("pause {id}"), deadline, |state| match state.container_state(id)?.1.as_str() {
            "running" => {
                state.set_state(id, "paused");
                Ok(())
            }
            other => Err(busy("cannot pause the container", id, other)),
        })
    }

    fn unpause(&self, id: &str, deadline: Duration) -> Result<()> {
        check_container_id(id)?;
        self.answer_within(format!("unpause {id}"), deadline, |state| match state.container_state(id)?.1.as_str() {
            "paused" => {
                state.set_state(id, "running");
                Ok(())
            }
            other => Err(busy("cannot unpause the container", id, other)),
        })
    }

    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<()> {
        check_container_id(id)?;
        let grace = grace.map(|grace| format!(" {}s", grace.as_secs())).unwrap_or_default();
        self.answer(format!("stop {id}{grace}"), |state| {
            if runs(&state.container_state(id)?.1) {
                state.set_state(id, "exited");
            }
            Ok(())
        })
    }

    fn start(&self, id: &str) -> Result<()> {
        check_container_id(id)?;
        self.answer(format!("start {id}"), |state| start(state, id))
    }

    fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<ExecOutcome> {
        check_container_id(id)?;
        let container = self.answer(format!("exec {id} {}", spec.argv.join(" ")), |state| {
            let detail = state.detail(id)?;
            if detail.state == "running" { Ok(detail.name) } else { Err(busy("cannot run a command in the container", id, &detail.state)) }
        })?;
        let stdin = stdin.map(|stdin| read_all(stdin, id)).transpose()?;
        let exec = FakeExec { container, spec: spec.clone(), stdin };
        // No lock is held while the caller's function runs.
        let output = match &mut *lock(&self.exec) {
            Some(answer) => answer(&mut lock(&self.state), &exec)?,
            None => return Err(Error::new(ErrorKind::Docker, "no answer was scripted for this command").on(exec.line())),
        };
        for frame in output.stdout.chunks(FRAME_BYTES) {
            stdout(frame)?;
        }
        let stderr = Tail::default();
        stderr.push(&output.stderr);
        match output.error {
            Some(error) => Err(error.on(id)),
            None => Ok(ExecOutcome { code: output.code, stderr: stderr.bytes() }),
        }
    }

    fn networks(&self) -> Result<Vec<NetworkInfo>> {
        self.answer("networks".into(), |state| Ok(state.networks.clone()))
    }

    fn image(&self, reference: &str) -> Result<ImageInfo> {
        check_image_reference(reference)?;
        self.answer(format!("image {reference}"), |state| state.image(reference).cloned().ok_or_else(|| no_such_image(reference)))
    }

    fn import_image(&self, repo: &str, tag: &str, _changes: &[&str], tar: &mut (dyn Read + Send)) -> Result<String> {
        let name = format!("{repo}:{tag}");
        check_image_reference(&name)?;
        let tar = read_all(tar, &name)?;
        self.answer(format!("import_image {name}"), |state| {
            let id = format!("sha256:imported-{}", state.imported.len() + 1);
            for image in &mut state.images {
                image.repo_tags.retain(|tag| *tag != name);
            }
            state.images.push(ImageInfo { id: id.clone(), repo_tags: vec![name], os: "linux".into(), ..ImageInfo::default() });
            state.imported.insert(id.clone(), tar);
            Ok(id)
        })
    }

    fn create_container(&self, new: &NewContainer) -> Result<String> {
        check_image_reference(&new.image)?;
        new.name.as_deref().map_or(Ok(()), check_container_id)?;
        self.answer(format!("create_container {}", new.image), |state| state.create_container(new))
    }

    fn remove_container(&self, id: &str) -> Result<()> {
        check_container_id(id)?;
        self.answer(format!("remove_container {id}"), |state| {
            state.remove_container(id);
            Ok(())
        })
    }

    fn run_attached(&self, id: &str) -> Result<Attached> {
        check_container_id(id)?;
        let detail = self.answer(format!("run_attached {id}"), |state| {
            start(state, id)?;
            state.detail(id)
        })?;
        match &mut *lock(&self.run) {
            Some(answer) => answer(&detail),
            None => Err(Error::new(ErrorKind::Docker, "no streams were scripted for this container").on(id)),
        }
    }

    fn archive(&self, id: &str, path: &str) -> Result<Box<dyn Read + Send>> {
        check_container_id(id)?;
        self.answer(format!("archive {id} {path}"), |state| {
            state.find(id)?;
            let missing = || Error::new(ErrorKind::NotFound, "there is no such path in the container").on(format!("{id}:{path}"));
            let tar = state.archives.get(path).cloned().ok_or_else(missing)?;
            Ok(Box::new(Cursor::new(tar)) as Box<dyn Read + Send>)
        })
    }

    fn reconnect(&self) -> Result<Box<dyn Engine>> {
        self.answer("reconnect".into(), |_| Ok(Box::new(self.clone()) as Box<dyn Engine>))
    }
}

fn known_volume(state: &FakeState, name: &str) -> Result<VolumeInfo> {
    state.volumes.iter().find(|volume| volume.name == name).cloned().ok_or_else(|| no_such_volume(name))
}

fn start(state: &mut FakeState, id: &str) -> Result<()> {
    match state.container_state(id)?.1.as_str() {
        "paused" => Err(busy("cannot start the container", id, "paused")),
        other => {
            if !runs(other) {
                state.set_state(id, "running");
            }
            Ok(())
        }
    }
}

fn busy(attempt: &str, id: &str, state: &str) -> Error {
    Error::new(ErrorKind::Busy, attempt).on(id).because(format!("it is {state}"))
}

fn read_all(reader: &mut (dyn Read + Send), subject: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).context(ErrorKind::Source, "cannot read what the engine is to be sent", subject)?;
    Ok(bytes)
}
