//! What was proved of packs, when and how deep: `verified/<32 hex>`. Each record has everything that is known; a new one is
//! written, durably, before those that it covers are deleted, so that a crash leaves both, and several verifies at once leave
//! several, which the next one merges.
//!
//! The records choose what is verified next and are shown to people. Nothing else relies on them.

use std::collections::{BTreeMap, HashMap};

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::Repository;
use super::object::{self, ObjectType};
use super::refresh::Problem;
use crate::error::{Error, ErrorKind, Result};
use crate::model::PackId;
use crate::seal;
use crate::storage::Key;

/// A record names at most so many packs, counted once for each verdict, and no more packs are kept in memory: 16 TiB in
/// full packs, 32 MiB of memory. Beyond it the oldest proofs are dropped, which are those that come up next anyway.
pub const PROOFS_MAX: usize = 1 << 19;
/// At most so many records are read and replaced in one go. There are several only when verifies ran at once or died.
const RECORDS_MAX: usize = 64;

/// What was found of a pack; the number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// 0: it is not what was written. Earlier proofs of it count no more.
    Damaged = 0,
    /// 1: every byte is as its scrub table says.
    Scrubbed = 1,
    /// 2: and every blob was opened.
    Opened = 2,
}

/// Packs of one verdict at one time, as they stand in a record (CBOR map).
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ProofGroup {
    /// Seconds since 1970: when the run began that found it.
    #[n(0)]
    pub time: i64,
    /// The number of a [`Verdict`]; others are passed over.
    #[n(1)]
    pub verdict: u8,
    /// Ids of packs, each 32 bytes, ascending.
    #[n(2)]
    pub packs: ByteVec,
}

impl ProofGroup {
    fn ids(&self) -> impl Iterator<Item = PackId> {
        self.packs.chunks_exact(PackId::LEN).filter_map(PackId::from_slice)
    }
}

/// Reads a record's body.
pub fn decode_proofs(body: &[u8]) -> Result<Vec<ProofGroup>> {
    let groups: Vec<ProofGroup> =
        minicbor::decode(body).map_err(|e| Error::damaged("a record of proofs is malformed").because(e.to_string()))?;
    let mut count = 0usize;
    for group in &groups {
        count = count.saturating_add(group.packs.len() / PackId::LEN);
        if group.packs.len() % PackId::LEN != 0 || !group.ids().is_sorted_by(|a, b| a < b) {
            return Err(Error::damaged("a record of proofs has a malformed list of packs"));
        }
    }
    if count > PROOFS_MAX {
        return Err(Error::damaged("a record of proofs names more packs than a record can"));
    }
    Ok(groups)
}

/// No such time.
const NEVER: i64 = i64::MIN;

/// When each verdict was found of a pack, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times([i64; 3]);

impl Times {
    const NONE: Self = Self([NEVER; 3]);

    fn get(&self, verdict: Verdict) -> i64 {
        self.0[verdict as usize]
    }

    /// The time of a proof that counts at `now`: one that is neither in the future nor older than known damage.
    fn proof(&self, verdict: Verdict, now: i64) -> Option<i64> {
        let (time, damaged) = (self.get(verdict), self.get(Verdict::Damaged));
        (time != NEVER && time <= now && damaged <= now && time > damaged).then_some(time)
    }
}

/// Of two times the later one. A clock was wrong that told a time after `now`: such a time gives way to any other.
fn later(a: i64, b: i64, now: i64) -> i64 {
    match (a <= now, b <= now) {
        (true, true) => a.max(b),
        (true, false) if a != NEVER => a,
        (false, true) if b != NEVER => b,
        (true, false) => b,
        (false, true) => a,
        (false, false) => a.min(b),
    }
}

/// What is known of packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proofs {
    packs: HashMap<PackId, Times>,
}

impl Proofs {
    /// Takes in a record that was read at `now` (seconds since 1970).
    pub fn merge(&mut self, groups: &[ProofGroup], now: i64) {
        for group in groups {
            for id in group.ids() {
                if self.packs.len() >= PROOFS_MAX && !self.packs.contains_key(&id) {
                    continue;
                }
                let times = self.packs.entry(id).or_insert(Times::NONE);
                if let Some(time) = times.0.get_mut(usize::from(group.verdict)) {
                    *time = later(*time, group.time, now);
                }
            }
        }
    }

    /// Notes what was found of a pack just now; that outdoes everything known before.
    pub fn set(&mut self, id: PackId, verdict: Verdict, now: i64) {
        let times = self.packs.entry(id).or_insert(Times::NONE);
        times.0 = times.0.map(|time| if time > now { NEVER } else { time });
        match verdict {
            Verdict::Damaged => *times = Times::NONE,
            // Older damage stays noted, in case another record has a proof that is older still.
            Verdict::Scrubbed if times.get(Verdict::Damaged) == now => times.0[Verdict::Damaged as usize] = NEVER,
            Verdict::Scrubbed => {}
            Verdict::Opened => *times = Times::NONE,
        }
        times.0[verdict as usize] = now;
    }

    /// When a pack was last proved at least so deep, in seconds since 1970; none when it was not, when damage was found
    /// since, or when the time lies after `now`.
    pub fn proved(&self, id: &PackId, depth: Verdict, now: i64) -> Option<i64> {
        let times = self.packs.get(id)?;
        let opened = times.proof(Verdict::Opened, now);
        if depth == Verdict::Opened { opened } else { opened.max(times.proof(Verdict::Scrubbed, now)) }
    }

    /// When somebody last looked so deep, whatever came of it. (What was found damaged last is read beside a sample, each time.)
    pub fn looked_at(&self, id: &PackId, depth: Verdict, now: i64) -> Option<i64> {
        let damaged = self.packs.get(id).map(|times| times.get(Verdict::Damaged)).filter(|time| *time != NEVER && *time <= now);
        self.proved(id, depth, now).max(damaged)
    }

    /// Whether the last look at a pack, at any depth, found damage.
    pub fn is_damaged(&self, id: &PackId, now: i64) -> bool {
        let damaged = self.packs.get(id).map(|times| times.get(Verdict::Damaged)).filter(|time| *time != NEVER && *time <= now);
        damaged.is_some() && damaged >= self.proved(id, Verdict::Scrubbed, now)
    }

    /// Forgets packs that are gone.
    pub fn retain(&mut self, there: impl Fn(&PackId) -> bool) {
        self.packs.retain(|id, _| there(id));
    }

    /// A record's body, canonical for what it holds: the newest first, ids ascending.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut groups: BTreeMap<(i64, u8), Vec<PackId>> = BTreeMap::new();
        for (id, times) in &self.packs {
            for verdict in [Verdict::Damaged, Verdict::Scrubbed, Verdict::Opened] {
                let time = times.get(verdict);
                if time != NEVER {
                    groups.entry((time, verdict as u8)).or_default().push(*id);
                }
            }
        }
        let mut room = PROOFS_MAX;
        let mut body = Vec::new();
        for ((time, verdict), mut ids) in groups.into_iter().rev() {
            ids.sort_unstable();
            ids.truncate(room);
            room -= ids.len();
            if !ids.is_empty() {
                let packs: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
                body.push(ProofGroup { time, verdict, packs: packs.into() });
            }
        }
        minicbor::to_vec(body).map_err(|e| Error::damaged("cannot encode a record of proofs").because(e.to_string()))
    }
}

/// What the records of a repository say.
#[derive(Debug, Default)]
pub struct ReadProofs {
    /// All of it, merged.
    pub proofs: Proofs,
    /// The records that a new one replaces: those that were read, and those that can't be what was written.
    pub records: Vec<Key>,
    /// Records that are damaged or can't be read.
    pub problems: Vec<Problem>,
}

impl Repository {
    /// Reads what was proved, as of `now` (seconds since 1970). A record that can't be read only means that more is verified
    /// again.
    pub fn read_proofs(&self, now: i64) -> Result<ReadProofs> {
        let mut read = ReadProofs::default();
        let listed = self.storage.list("verified")?;
        for key in listed.into_iter().map(|listed| listed.key).filter(is_record).take(RECORDS_MAX) {
            let body = object::get(&*self.storage, &self.keys, &self.config.repository, ObjectType::Verified, &key);
            match body.and_then(|body| decode_proofs(&body).map_err(|e| e.on(&key))) {
                Ok(groups) => read.proofs.merge(&groups, now),
                // Replaced by another verify meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    read.problems.push(Problem { key: key.to_string(), what: error.to_string() });
                    // Written by a later version, or not to be read just now: it stays.
                    if error.kind() != ErrorKind::Damaged {
                        continue;
                    }
                }
            }
            read.records.push(key);
        }
        Ok(read)
    }

    /// Stores what is known, durably, then deletes the records that it replaces. Returns the key of the new one.
    pub fn write_proofs(&self, proofs: &Proofs, replaced: &[Key]) -> Result<Key> {
        let name: [u8; 16] = seal::random_array()?;
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let key: Key = format!("verified/{name}").parse()?;
        object::put(&*self.storage, &self.keys, &self.config.repository, ObjectType::Verified, &key, &proofs.encode()?)?;
        for old in replaced.iter().filter(|old| **old != key) {
            if let Err(error) = self.storage.delete(old) {
                tracing::warn!("a record of proofs that was replaced stays: {error}");
            }
        }
        Ok(key)
    }
}

/// Whether a key names a record.
fn is_record(key: &Key) -> bool {
    let name = key.as_str().strip_prefix("verified/");
    name.is_some_and(|name| name.len() == 32 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::Verdict::{Damaged, Opened, Scrubbed};
    use super::*;
    use crate::clock::ManualClock;
    use crate::index::memory::MemoryIndex;
    use crate::repo::{CreateOptions, Locked};
    use crate::storage::Storage;
    use crate::storage::memory::MemoryStorage;

    fn id(n: u8) -> PackId {
        PackId([n; 32])
    }

    fn merged(records: &[&Proofs], now: i64) -> Proofs {
        let mut all = Proofs::default();
        for record in records {
            all.merge(&decode_proofs(&record.encode().unwrap()).unwrap(), now);
        }
        all
    }

    fn proofs(verdicts: &[(u8, Verdict, i64)]) -> Proofs {
        let mut proofs = Proofs::default();
        for (pack, verdict, now) in verdicts {
            proofs.set(id(*pack), *verdict, *now);
        }
        proofs
    }

    #[test]
    fn the_deeper_proof_counts_for_the_other_and_not_the_other_way() {
        let proofs = proofs(&[(1, Scrubbed, 10), (2, Opened, 20), (3, Opened, 30), (3, Scrubbed, 40)]);
        let at = |pack, depth| proofs.proved(&id(pack), depth, 100);
        assert_eq!((at(1, Scrubbed), at(1, Opened)), (Some(10), None));
        assert_eq!((at(2, Scrubbed), at(2, Opened)), (Some(20), Some(20)));
        assert_eq!((at(3, Scrubbed), at(3, Opened)), (Some(40), Some(30)));
        assert_eq!(at(4, Scrubbed), None);
    }

    #[test]
    fn damage_takes_earlier_proofs_away_also_those_of_other_records() {
        let early = proofs(&[(1, Opened, 10), (2, Opened, 60)]);
        let damaged = proofs(&[(1, Damaged, 50), (2, Damaged, 50)]);
        for order in [[&early, &damaged], [&damaged, &early]] {
            let mut all = merged(&order, 100);
            assert_eq!(all.proved(&id(1), Scrubbed, 100), None);
            assert_eq!(all.proved(&id(2), Scrubbed, 100), Some(60), "put right since");
            assert_eq!((all.looked_at(&id(1), Opened, 100), all.looked_at(&id(1), Opened, 40)), (Some(50), None));
            all.set(id(1), Scrubbed, 100);
            assert_eq!((all.proved(&id(1), Scrubbed, 100), all.proved(&id(1), Opened, 100)), (Some(100), None));
            let again = merged(&[&all, &early], 100);
            assert_eq!(again.proved(&id(1), Opened, 100), None, "what is older than the damage stays void");
        }
        let same_second = proofs(&[(1, Damaged, 50), (1, Scrubbed, 50), (2, Scrubbed, 50), (2, Damaged, 50)]);
        assert_eq!((same_second.proved(&id(1), Scrubbed, 50), same_second.proved(&id(2), Scrubbed, 50)), (Some(50), None));
    }

    #[test]
    fn what_lies_in_the_future_does_not_count_and_gives_way() {
        let wrong = proofs(&[(1, Opened, 5000), (2, Damaged, 5000)]);
        assert_eq!(wrong.proved(&id(1), Scrubbed, 100), None);
        let right = proofs(&[(1, Opened, 50)]);
        for order in [[&wrong, &right], [&right, &wrong]] {
            assert_eq!(merged(&order, 100).proved(&id(1), Opened, 100), Some(50));
        }
        let mut all = merged(&[&wrong], 100);
        assert_eq!(all.proved(&id(1), Opened, 6000), Some(5000), "the clock may be the one that is wrong now");
        all.set(id(1), Scrubbed, 100);
        all.set(id(2), Scrubbed, 100);
        assert_eq!((all.proved(&id(1), Opened, 6000), all.proved(&id(1), Scrubbed, 100)), (None, Some(100)));
        assert_eq!(all.proved(&id(2), Scrubbed, 100), Some(100));
    }

    #[test]
    fn a_record_beyond_its_bound_keeps_the_newest() {
        let mut proofs = Proofs::default();
        for n in 0..u32::try_from(PROOFS_MAX).unwrap() + 10 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            proofs.set(PackId(bytes), Scrubbed, if n < 100 { 1 } else { 2 });
        }
        let body = proofs.encode().unwrap();
        assert!((body.len() as u64) < object::OBJECT_BYTES_MAX);
        let groups = decode_proofs(&body).unwrap();
        assert_eq!(groups.iter().map(|group| (group.time, group.packs.len() / 32)).collect::<Vec<_>>(), [(2, PROOFS_MAX - 90), (1, 90)]);
        let more = minicbor::to_vec([&groups[..], &[ProofGroup { time: 3, verdict: 1, packs: vec![1; 32].into() }]].concat()).unwrap();
        assert!(decode_proofs(&more).is_err());
    }

    #[test]
    fn malformed_lists_are_refused_and_unknown_verdicts_passed_over() {
        let body = |verdict, packs: Vec<u8>| minicbor::to_vec([ProofGroup { time: 1, verdict, packs: packs.into() }]).unwrap();
        assert!(decode_proofs(&body(1, vec![1; 31])).is_err());
        assert!(decode_proofs(&body(1, [[2; 32], [1; 32]].concat())).is_err());
        assert!(decode_proofs(&body(1, [[1; 32], [1; 32]].concat())).is_err());
        assert!(decode_proofs(&[]).is_err());
        let mut proofs = Proofs::default();
        proofs.merge(&decode_proofs(&body(9, vec![1; 32])).unwrap(), 10);
        assert_eq!(proofs.proved(&id(1), Scrubbed, 10), None);
    }

    fn any_proofs() -> impl Strategy<Value = Proofs> {
        let verdict = prop_oneof![Just(Damaged), Just(Scrubbed), Just(Opened)];
        prop::collection::vec((0..6u8, verdict, 0..20i64), 0..12).prop_map(|mut verdicts| {
            verdicts.sort_by_key(|(_, _, time)| *time);
            proofs(&verdicts)
        })
    }

    proptest! {
        #[test]
        fn merging_knows_no_order_and_writing_changes_nothing(a in any_proofs(), b in any_proofs(), c in any_proofs(), now in 0..25i64) {
            let all = merged(&[&a, &b, &c], now);
            prop_assert_eq!(&all, &merged(&[&c, &a, &b], now));
            let once = merged(&[&a, &b], now);
            prop_assert_eq!(&all.encode().unwrap(), &merged(&[&once, &c], now).encode().unwrap());
            for pack in 0..6 {
                for depth in [Scrubbed, Opened] {
                    prop_assert_eq!(merged(&[&all], now).proved(&id(pack), depth, now), all.proved(&id(pack), depth, now));
                }
            }
        }
    }

    #[test]
    fn a_new_record_replaces_those_that_were_read_and_no_others() {
        let storage = MemoryStorage::new();
        Repository::create(&storage, &CreateOptions::default(), &ManualClock::at(1)).unwrap();
        let locked = Locked::read(Arc::new(storage.clone())).unwrap();
        let repo = locked.unlock(None, Box::new(MemoryIndex::new()), Arc::new(ManualClock::at(1)), "here").unwrap();
        let keys = || storage.list("verified").unwrap().into_iter().map(|listed| listed.key).collect::<Vec<_>>();
        let first = repo.write_proofs(&proofs(&[(1, Scrubbed, 10)]), &[]).unwrap();
        let read = repo.read_proofs(100).unwrap();
        // Two at once: each replaces what it read.
        let one = repo.write_proofs(&proofs(&[(2, Opened, 20)]), &read.records).unwrap();
        let other = repo.write_proofs(&proofs(&[(1, Opened, 30)]), &read.records).unwrap();
        assert!(!keys().contains(&first) && keys().len() == 2);
        let read = repo.read_proofs(100).unwrap();
        assert_eq!(read.proofs, proofs(&[(2, Opened, 20), (1, Opened, 30)]));
        // A damaged one is told and replaced; a name that is none is not ours.
        storage.with_objects(|objects| {
            objects.get_mut(&one).unwrap()[60] ^= 1;
            objects.insert("verified/x".parse().unwrap(), Vec::new());
        });
        let read = repo.read_proofs(100).unwrap();
        assert_eq!(read.proofs, proofs(&[(1, Opened, 30)]));
        assert_eq!(read.problems.iter().map(|problem| &problem.key[..]).collect::<Vec<_>>(), [one.as_str()]);
        let last = repo.write_proofs(&read.proofs, &read.records).unwrap();
        assert!(!keys().contains(&other));
        assert_eq!(keys().iter().filter(|key| key.as_str() != "verified/x").collect::<Vec<_>>(), [&last]);
    }
}
