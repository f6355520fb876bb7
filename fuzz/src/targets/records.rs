//! Records of the repository and of the stat cache.

use icecore::model::node::{decode_xattrs, encode_xattrs};
use icecore::model::{Node, PackId, Snapshot, hash};
use icecore::ops::snapshot::is_stat_record;
use icecore::repo::{self, Config, Entry, ObjectType, Operation, ProofGroup, Proofs, Verdict};
use icecore::seal::Keys;
use icecore::seal::slot::{Secret, Slot};
use icecore::storage::memory::MemoryStorage;
use icecore::storage::{Key, Storage};

use super::REPOSITORY;

/// A node has one spelling.
pub(super) fn node(bytes: &[u8]) -> bool {
    let _ = Node::encoded_len(bytes);
    let Ok(node) = Node::decode(bytes) else { return false };
    let mut again = Vec::new();
    node.encode(&mut again);
    assert_eq!(again, bytes, "a node came back different");
    assert_eq!(Node::encoded_len(bytes).ok(), Some(Some(bytes.len())), "a node of another length than it says");
    true
}

/// So has an xattr set.
pub(super) fn xattrs(bytes: &[u8]) -> bool {
    let Ok(set) = decode_xattrs(bytes) else { return false };
    assert_eq!(encode_xattrs(set), bytes, "an xattr set came back different");
    true
}

/// CBOR has several spellings of one record: what we write of it is read back the same.
pub(super) fn snapshot(bytes: &[u8]) -> bool {
    let Ok(record) = Snapshot::decode(bytes) else { return false };
    let ours = record.encode().expect("a record that was read can be written");
    assert_eq!(Snapshot::decode(&ours).expect("what we wrote"), record);
    true
}

/// The input is the body; magic, length, MAC and checksum are put around it.
pub(super) fn config(body: &[u8]) -> bool {
    let _ = Config::decode(body);
    let mut object = b"ICEC".to_vec();
    object.extend_from_slice(&(body.len() as u32).to_le_bytes());
    object.extend_from_slice(body);
    let keys = Keys::public(&REPOSITORY);
    let mac = keys.config_mac(&object);
    object.extend_from_slice(&mac);
    let check = hash::hash(&[&object]);
    object.extend_from_slice(&check);
    let Ok(config) = Config::decode(&object) else { return false };
    assert!(Config::authenticate(&object, &keys).is_ok());
    for operation in [Operation::Read, Operation::Write, Operation::Prune, Operation::Verify] {
        let _ = config.require(operation);
    }
    let ours = config.encode(&keys).expect("a config that was read can be written");
    assert_eq!(Config::decode(&ours).expect("what we wrote"), config);
    true
}

/// The input is the body; the checksum is put before it. Passphrases are not tried: the slot chooses how long that takes.
pub(super) fn slot(body: &[u8]) -> bool {
    let _ = repo::decode_slot(body);
    let object = [&hash::hash(&[body])[..], body].concat();
    let Ok(slot) = repo::decode_slot(&object) else { return false };
    let ours = minicbor::to_vec(&slot).expect("a slot that was read can be written");
    let again: Slot = minicbor::decode(&ours).expect("what we wrote");
    assert_eq!(minicbor::to_vec(&again).expect("once more"), ours);
    let _ = slot.unwrap(&Secret::KeyFile(vec![9; 64].into()));
    true
}

/// The bytes of any sealed object, as a store may return them.
pub(super) fn envelope(bytes: &[u8]) -> bool {
    let keys = Keys::public(&REPOSITORY);
    let key = journal_key();
    let kinds =
        [ObjectType::Journal, ObjectType::Delta, ObjectType::Forget, ObjectType::Condemned, ObjectType::Final, ObjectType::Verified];
    kinds.into_iter().filter(|kind| repo::open_object(&keys, &REPOSITORY, *kind, &key, &mut bytes.to_vec()).is_ok()).count() == 1
}

/// The input is the body of a journal entry.
pub(super) fn journal(body: &[u8]) -> bool {
    let (keys, storage, key) = (Keys::public(&REPOSITORY), MemoryStorage::new(), journal_key());
    repo::put_object(&storage, &keys, &REPOSITORY, ObjectType::Journal, &key, body).expect("room in memory");
    let mut object = storage.get(&key, repo::OBJECT_BYTES_MAX).expect("it was put");
    let Ok((_, entry)) = repo::decode_entry(&keys, &REPOSITORY, &key, &mut object) else { return false };
    let ours = minicbor::to_vec(&entry).expect("an entry that was read can be written");
    assert_eq!(minicbor::decode::<Entry>(&ours).expect("what we wrote"), entry);
    if let Entry::Checkpoint(published) | Entry::Snapshot { published, .. } | Entry::Member { published, .. } = &entry {
        if let Some(inline) = &published.inline {
            delta(inline);
        }
        for key in &published.deltas {
            let _ = key.parse::<Key>();
        }
    }
    true
}

/// The body of an index delta, inline or as an object.
pub(super) fn delta(body: &[u8]) -> bool {
    let Ok(packs) = repo::decode_delta(body) else { return false };
    let ours = minicbor::to_vec(&packs).expect("a delta that was read can be written");
    assert_eq!(repo::decode_delta(&ours).expect("what we wrote"), packs);
    packs.iter().all(|pack| pack.blobs().is_ok_and(|blobs| blobs.len() <= pack.index.len()))
}

/// The body of a record of proofs. What is merged from it is written canonically and read back the same.
pub(super) fn verified(body: &[u8]) -> bool {
    let Ok(groups) = repo::decode_proofs(body) else { return false };
    let ours = minicbor::to_vec(&groups).expect("a record that was read can be written");
    assert_eq!(repo::decode_proofs(&ours).expect("what we wrote"), groups);
    let merged = |groups: &[ProofGroup]| {
        let mut proofs = Proofs::default();
        proofs.merge(groups, 1_795_000_000);
        proofs
    };
    let proofs = merged(&groups);
    let again = merged(&repo::decode_proofs(&proofs.encode().expect("so can what it says")).expect("what we wrote"));
    assert_eq!(again.encode().expect("once more"), proofs.encode().expect("once more"));
    for id in groups.iter().filter_map(|group| PackId::from_slice(group.packs.get(..32)?)) {
        let opened = proofs.proved(&id, Verdict::Opened, 1_795_000_000);
        assert!(opened <= proofs.proved(&id, Verdict::Scrubbed, 1_795_000_000), "what was opened was scrubbed");
    }
    true
}

/// A record of the stat cache: local, but its file may be damaged.
pub(super) fn stat_record(bytes: &[u8]) -> bool {
    is_stat_record(bytes)
}

/// The key that sealed inputs stand under.
pub(super) fn journal_key() -> Key {
    "log/07070707070707070707070707070707/00000001".parse().expect("a legal key")
}
