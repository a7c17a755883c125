//! The lot heads of a source, which a file is compared with: the newest known version of each lot.
//!
//! The heads are one sorted vector with 40 bytes per lot, since this is the largest allocation of a worker. A look-up
//! interpolates the position of a lot and searches the few entries around it. A binary search of the whole vector waits
//! for memory in each of its 17 steps, which took longer than splitting the rows into fields.

use uuid::Uuid;

mod load;

const ABSENT: u8 = 1;
const SEEN: u8 = 2;
const MARKED: u8 = 4;
const CONTESTED: u8 = 8;
const HELD: u8 = 16;
const UNREADABLE: u8 = 32;

/// The newest version of one lot.
#[derive(Debug, Clone, Copy)]
pub struct Head {
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
pub struct Heads {
    sorted: Vec<Head>,
    /// The start of each part in `sorted`. The parts divide the range of lot numbers into equal widths.
    parts: Vec<u32>,
    /// The number of parts per lot number.
    scale: f64,
    /// Lots without a head that the current file contains in an unreadable record.
    headless_unreadable: Vec<i64>,
}

/// Average number of lots in a part.
const PART: usize = 1;

impl Head {
    /// Returns the head of a known, unchanged version that belongs to no lot.
    pub fn unchanged(row_hash: Uuid, row_id: i64) -> Head {
        Head { lot: 0, row_hash, row_id, flags: 0 }
    }

    /// Returns true if the lot was not in the newest file.
    pub fn absent(&self) -> bool {
        self.flags & ABSENT != 0
    }

    /// Returns true if the current file already contained the lot.
    pub fn again(&self) -> bool {
        self.flags & SEEN != 0
    }

    /// Returns true if the current file already contained this version of the lot.
    pub fn held(&self) -> bool {
        self.flags & HELD != 0
    }

    /// Returns true if another file of the newest window may contain the lot's greater version.
    ///
    /// Within one window the hash decides, and the head may be the lesser version. The next sighting decides again, so
    /// it must be staged.
    pub fn contested(&self) -> bool {
        self.flags & CONTESTED != 0
    }
}

impl Heads {
    fn new(mut sorted: Vec<Head>) -> Heads {
        sorted.sort_unstable_by_key(|h| h.lot);
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Heads::default() };
        let parts = sorted.len() / PART + 1;
        let scale = parts as f64 / ((last.lot - first.lot) as f64 + 1.0);
        let mut heads = Heads { sorted, parts: vec![0; parts + 1], scale, headless_unreadable: Vec::new() };
        for head in 0..heads.sorted.len() {
            let part = heads.part(heads.sorted[head].lot);
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
    fn part(&self, lot: i64) -> usize {
        let first = self.sorted.first().map_or(0, |h| h.lot);
        ((lot.saturating_sub(first) as f64 * self.scale) as usize).min(self.parts.len().saturating_sub(2))
    }

    /// Records that the file contains the lot with this version. Returns the previous head.
    pub fn see(&mut self, lot: i64, row_hash: Uuid) -> Option<Head> {
        let head = self.find(lot)?;
        let before = *head;
        head.flags |= if head.row_hash == row_hash { SEEN | HELD } else { SEEN };
        Some(before)
    }

    fn find(&mut self, lot: i64) -> Option<&mut Head> {
        let part = self.part(lot);
        let (begin, end) = (*self.parts.get(part)? as usize, *self.parts.get(part + 1)? as usize);
        let here = &mut self.sorted[begin..end];
        let at = here.binary_search_by_key(&lot, |h| h.lot).ok()?;
        Some(&mut here[at])
    }

    /// Records that the current file contains the lot in an unreadable record: the lot is present, the version unknown.
    pub fn note_unreadable(&mut self, lot: i64) {
        match self.find(lot) {
            Some(head) => head.flags |= UNREADABLE,
            None => self.headless_unreadable.push(lot),
        }
    }

    /// Returns the lots without a head that the current file contains in unreadable records.
    pub fn headless_unreadable(&self) -> Vec<i64> {
        self.headless_unreadable.clone()
    }

    /// Returns the absent lots that the current file contains only in unreadable records.
    pub fn back_unreadable(&self) -> Vec<i64> {
        let back = |h: &&Head| h.absent() && h.flags & (SEEN | UNREADABLE) == UNREADABLE;
        self.sorted.iter().filter(back).map(|h| h.lot).collect()
    }

    /// Returns the lots that the file does not contain: lots of the newest file until now, and absent lots without a
    /// recorded absence, since no complete file has been ingested since. A lot in an unreadable record counts as
    /// contained.
    pub fn unseen(&self) -> (Vec<i64>, Vec<i64>) {
        let unseen = || self.sorted.iter().filter(|h| h.flags & (SEEN | UNREADABLE) == 0);
        (
            unseen().filter(|h| !h.absent()).map(|h| h.lot).collect(),
            unseen().filter(|h| h.absent() && h.flags & MARKED == 0).map(|h| h.lot).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(lots: &[i64]) -> Heads {
        Heads::new(
            lots.iter()
                .map(|&lot| Head { lot, row_hash: Uuid::from_u128(lot as u128), row_id: lot, flags: 0 })
                .collect(),
        )
    }

    #[test]
    fn every_lot_is_found_however_the_numbers_lie() {
        let spread: Vec<i64> = (0..1000).map(|i| 40_000_000 + i * i * 7).collect();
        let far = [spread.as_slice(), &[0, 1, 999_999_999_999_999_999]].concat();
        for lots in [&[][..], &[5], &[5, 6], &spread, &far] {
            let mut heads = heads(lots);
            for &lot in lots {
                assert_eq!(heads.see(lot, Uuid::nil()).map(|h| h.lot), Some(lot), "{lot}");
            }
            for stranger in [2, 39_999_999, 40_000_003, 1_000_000_000_000_000_000] {
                assert!(heads.see(stranger, Uuid::nil()).is_none(), "{stranger}");
            }
            assert!(heads.unseen().0.is_empty());
        }
    }
    #[test]
    fn a_lot_whose_record_cannot_be_read_is_neither_gone_nor_absent_and_keeps_its_version() {
        let mut heads = heads(&[1, 2, 3, 4, 5]);
        for (lot, flags) in [(3, ABSENT), (4, ABSENT | MARKED), (5, ABSENT)] {
            heads.find(lot).unwrap().flags = flags;
        }
        for lot in [1, 3, 4, 99] {
            heads.note_unreadable(lot);
        }
        assert_eq!(heads.unseen(), (vec![2], vec![5]));
        assert_eq!(heads.back_unreadable(), [3, 4]);
        assert_eq!(heads.headless_unreadable(), [99]);
        // The same lot in a readable record decides.
        let before = heads.see(3, Uuid::from_u128(3)).unwrap();
        assert!(before.absent() && !before.again());
        assert_eq!(heads.back_unreadable(), [4]);
    }
}
