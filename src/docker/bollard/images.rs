//! Images: what is known of one, and making one of a root file system that we bring.

use std::io::{self, Read};
use std::time::Duration;

use ::bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;
use tokio::sync::mpsc;

use super::BollardEngine;
use super::calls::Late;
use super::convert::image_info;
use super::failure::{status, too_slow};
use super::streams::PART_BYTES;
use crate::docker::{ImageInfo, no_such_image};
use crate::error::{ErrorKind, IoContext, Result};

/// How long an import may take: the engine unpacks what it gets.
const IMPORT_SECONDS_MAX: u64 = 600;

impl BollardEngine {
    pub(super) fn inspect_image(&self, reference: &str) -> Result<ImageInfo> {
        let asked = reference.to_owned();
        match self.ask(|docker| async move { docker.inspect_image(&asked).await })? {
            Ok(image) => Ok(image_info(image)),
            Err(cause) if status(&cause) == Some(404) => Err(no_such_image(reference)),
            Err(cause) => Err(self.failure(&format!("cannot inspect the image {reference}"), &cause)),
        }
    }

    pub(super) fn import(&self, repo: &str, tag: &str, changes: &[&str], tar: &mut (dyn Read + Send)) -> Result<String> {
        let name = format!("{repo}:{tag}");
        let deadline = Duration::from_secs(IMPORT_SECONDS_MAX);
        let changes = changes.iter().map(|change| (*change).to_owned()).collect();
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(repo).tag(tag).changes(changes).build();
        let (parts, mut taken) = mpsc::channel(2);
        let body = ::bollard::body_try_stream(futures_util::stream::poll_fn(move |context| taken.poll_recv(context)));
        let answer = self.docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>();
        // At the deadline the request ends, and with it the sending below.
        let request = async move { tokio::time::timeout(deadline, answer).await };
        let pending = self.calls.begin(&format!("import the image {name}"), Late::Withdraw, request);

        let mut buffer = vec![0; PART_BYTES];
        loop {
            match tar.read(&mut buffer) {
                Ok(0) => break,
                // The engine takes no more: its answer says why.
                Ok(length) if parts.blocking_send(Ok(buffer[..length].to_vec().into())).is_err() => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Ends the request as broken, so that half an image isn't taken for a whole one.
                    let _ = parts.blocking_send(Err(io::Error::other("the image could not be read")));
                    return Err(error).context(ErrorKind::Source, "cannot read the image to be imported", &name);
                }
            }
        }
        drop(parts);
        let answers = match pending.wait(deadline) {
            Some(Ok(answers)) => answers.map_err(|cause| self.failure(&format!("cannot import the image {name}"), &cause))?,
            Some(Err(_)) | None => return Err(too_slow(&self.address, deadline)),
        };
        let id = answers.into_iter().rev().filter_map(|answer| answer.status).find(|status| status.starts_with("sha256:"));
        match id {
            Some(id) => Ok(id),
            None => Ok(self.inspect_image(&name)?.id),
        }
    }
}
