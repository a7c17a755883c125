//! The lot heads of a source, which a file is compared with: the newest known version of each lot.
//!
//! The heads are one sorted vector with 40 bytes per lot, since this is the largest allocation of a worker. A look-up
//! interpolates the position of a lot and searches the few entries around it. A binary search of the whole vector waits
//! for memory in each of its 17 steps, which took longer than splitting the rows into fields.

use uuid::Uuid;

mod load;

const FLAG_ABSENT: u8 = 1;
const FLAG_SEEN: u8 = 2;
const FLAG_ABSENCE_RECORDED: u8 = 4;
const FLAG_AMBIGUOUS: u8 = 8;
const FLAG_SAME_VERSION: u8 = 16;
const FLAG_UNREADABLE: u8 = 32;

/// The newest version of one lot.
#[derive(Debug, Clone, Copy)]
pub struct LotHead {
    /// The lot number.
    pub lot: i64,
    /// The row hash of the version.
    pub row_hash: Uuid,
    /// The id of the version in `raw.rows`, or 0 for another month, which a manifest cannot refer to.
    pub row_id: i64,
    flags: u8,
}

/// All heads of a source.
#[derive(Debug, Default)]
pub struct LotHeads {
    sorted: Vec<LotHead>,
    /// The start of each part in `sorted`. The parts divide the range of lot numbers into equal widths.
    parts: Vec<u32>,
    /// The number of parts per lot number.
    scale: f64,
    /// Lots without a head that the current file contains in an unreadable record.
    headless_unreadable: Vec<i64>,
}

/// Average number of lots in a part.
const LOTS_PER_PART: usize = 1;

impl LotHead {
    /// Returns the head of a known, unchanged version that belongs to no lot.
    pub fn unchanged_version(row_hash: Uuid, row_id: i64) -> LotHead {
        LotHead { lot: 0, row_hash, row_id, flags: 0 }
    }

    /// Returns true if the lot was not in the newest file.
    pub fn was_absent(&self) -> bool {
        self.flags & FLAG_ABSENT != 0
    }

    /// Returns true if the current file already contained the lot.
    pub fn already_seen(&self) -> bool {
        self.flags & FLAG_SEEN != 0
    }

    /// Returns true if the current file already contained this version of the lot.
    pub fn same_version_seen(&self) -> bool {
        self.flags & FLAG_SAME_VERSION != 0
    }

    /// Returns true if another file of the newest window may contain the lot's greater version.
    ///
    /// Within one window the hash decides, and the head may be the lesser version. The next sighting decides again, so
    /// it must be staged.
    pub fn is_ambiguous(&self) -> bool {
        self.flags & FLAG_AMBIGUOUS != 0
    }
}

impl LotHeads {
    fn new(mut sorted: Vec<LotHead>) -> LotHeads {
        sorted.sort_unstable_by_key(|h| h.lot);
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return LotHeads::default() };
        let parts = sorted.len() / LOTS_PER_PART + 1;
        let scale = parts as f64 / ((last.lot - first.lot) as f64 + 1.0);
        let mut heads = LotHeads { sorted, parts: vec![0; parts + 1], scale, headless_unreadable: Vec::new() };
        for head in 0..heads.sorted.len() {
            let part = heads.part_index(heads.sorted[head].lot);
            heads.parts[part + 1] = head as u32 + 1;
        }
        // An empty part ends where the part before it ends.
        for part in 1..heads.parts.len() {
            heads.parts[part] = heads.parts[part].max(heads.parts[part - 1]);
        }
        heads
    }

    /// Returns true if the source has no heads.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Returns the index of the part for a lot number. The index never decreases with the lot number, despite rounding.
    fn part_index(&self, lot: i64) -> usize {
        let first = self.sorted.first().map_or(0, |h| h.lot);
        ((lot.saturating_sub(first) as f64 * self.scale) as usize).min(self.parts.len().saturating_sub(2))
    }

    /// Records that the file contains the lot with this version. Returns the previous head.
    pub fn observe(&mut self, lot: i64, row_hash: Uuid) -> Option<LotHead> {
        let head = self.find_mut(lot)?;
        let before = *head;
        head.flags |= if head.row_hash == row_hash { FLAG_SEEN | FLAG_SAME_VERSION } else { FLAG_SEEN };
        Some(before)
    }

    fn find_mut(&mut self, lot: i64) -> Option<&mut LotHead> {
        let part = self.part_index(lot);
        let (begin, end) = (*self.parts.get(part)? as usize, *self.parts.get(part + 1)? as usize);
        let here = &mut self.sorted[begin..end];
        let at = here.binary_search_by_key(&lot, |h| h.lot).ok()?;
        Some(&mut here[at])
    }

    /// Records that the current file contains the lot in an unreadable record: the lot is present, the version unknown.
    pub fn record_unreadable(&mut self, lot: i64) {
        match self.find_mut(lot) {
            Some(head) => head.flags |= FLAG_UNREADABLE,
            None => self.headless_unreadable.push(lot),
        }
    }

    /// Returns the lots without a head that the current file contains in unreadable records.
    pub fn headless_unreadable(&self) -> Vec<i64> {
        self.headless_unreadable.clone()
    }

    /// Returns the absent lots that the current file contains only in unreadable records.
    pub fn back_unreadable(&self) -> Vec<i64> {
        let back = |h: &&LotHead| h.was_absent() && h.flags & (FLAG_SEEN | FLAG_UNREADABLE) == FLAG_UNREADABLE;
        self.sorted.iter().filter(back).map(|h| h.lot).collect()
    }

    /// Returns the lots that the file does not contain: lots of the newest file until now, and absent lots without a
    /// recorded absence, since no complete file has been ingested since. A lot in an unreadable record counts as
    /// contained.
    pub fn unseen_lots(&self) -> (Vec<i64>, Vec<i64>) {
        let unseen = || self.sorted.iter().filter(|h| h.flags & (FLAG_SEEN | FLAG_UNREADABLE) == 0);
        (
            unseen().filter(|h| !h.was_absent()).map(|h| h.lot).collect(),
            unseen().filter(|h| h.was_absent() && h.flags & FLAG_ABSENCE_RECORDED == 0).map(|h| h.lot).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_heads(lots: &[i64]) -> LotHeads {
        LotHeads::new(
            lots.iter()
                .map(|&lot| LotHead { lot, row_hash: Uuid::from_u128(lot as u128), row_id: lot, flags: 0 })
                .collect(),
        )
    }

    #[test]
    fn every_lot_is_found_however_the_numbers_lie() {
        let spread: Vec<i64> = (0..1000).map(|i| 40_000_000 + i * i * 7).collect();
        let far = [spread.as_slice(), &[0, 1, 999_999_999_999_999_999]].concat();
        for lots in [&[][..], &[5], &[5, 6], &spread, &far] {
            let mut heads = test_heads(lots);
            for &lot in lots {
                assert_eq!(heads.observe(lot, Uuid::nil()).map(|h| h.lot), Some(lot), "{lot}");
            }
            for stranger in [2, 39_999_999, 40_000_003, 1_000_000_000_000_000_000] {
                assert!(heads.observe(stranger, Uuid::nil()).is_none(), "{stranger}");
            }
            assert!(heads.unseen_lots().0.is_empty());
        }
    }
    #[test]
    fn a_lot_whose_record_cannot_be_read_is_neither_gone_nor_absent_and_keeps_its_version() {
        let mut heads = test_heads(&[1, 2, 3, 4, 5]);
        for (lot, flags) in [(3, FLAG_ABSENT), (4, FLAG_ABSENT | FLAG_ABSENCE_RECORDED), (5, FLAG_ABSENT)] {
            heads.find_mut(lot).unwrap().flags = flags;
        }
        for lot in [1, 3, 4, 99] {
            heads.record_unreadable(lot);
        }
        assert_eq!(heads.unseen_lots(), (vec![2], vec![5]));
        assert_eq!(heads.back_unreadable(), [3, 4]);
        assert_eq!(heads.headless_unreadable(), [99]);
        // The same lot in a readable record decides.
        let before = heads.observe(3, Uuid::from_u128(3)).unwrap();
        assert!(before.was_absent() && !before.already_seen());
        assert_eq!(heads.back_unreadable(), [4]);
    }
}
