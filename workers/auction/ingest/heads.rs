//! What a file is compared with: per lot of its source, the newest version seen.
//!
//! Kept as one sorted vector, 40 bytes a lot, since this is the largest thing a worker holds. A look-up is a guess where
//! in it a lot should be, and a search of the few places around: a binary search of the whole waits for memory at each of
//! its 17 steps, which took longer than splitting the rows into their fields.

use uuid::Uuid;

mod load;

const ABSENT: u8 = 1;
const SEEN: u8 = 2;
const MARKED: u8 = 4;
const CONTESTED: u8 = 8;
const HELD: u8 = 16;
const UNREADABLE: u8 = 32;

/// One lot's newest version.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The lot number.
    pub lot: i64,
    /// The version's hash.
    pub row_hash: Uuid,
    /// The version's id in `raw.rows`; 0 when it lies in another month, which a manifest may not refer to.
    pub row_id: i64,
    flags: u8,
}

/// All heads of a source.
#[derive(Debug, Default)]
pub struct Heads {
    sorted: Vec<Head>,
    /// Where each part of the range of lot numbers begins in `sorted`; the parts are equally wide.
    parts: Vec<u32>,
    /// Parts per lot number.
    scale: f64,
    /// Lots without a head that the file at hand holds in a record that cannot be read.
    headless_unreadable: Vec<i64>,
}

/// Lots of a part, on average.
const PART: usize = 1;

impl Head {
    /// Returns the head of a version that is known and did not change; of no lot.
    pub fn unchanged(row_hash: Uuid, row_id: i64) -> Head {
        Head { lot: 0, row_hash, row_id, flags: 0 }
    }

    /// Whether the lot did not stand in the newest file.
    pub fn absent(&self) -> bool {
        self.flags & ABSENT != 0
    }

    /// Whether the file at hand has held the lot before.
    pub fn again(&self) -> bool {
        self.flags & SEEN != 0
    }

    /// Whether the file at hand has held this very version before.
    pub fn held(&self) -> bool {
        self.flags & HELD != 0
    }

    /// Whether another file of the newest window may hold the lot's greater version: of two in one window the hash
    /// decides, and the lesser may be the head. The next sighting decides anew, so it must be staged.
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
        // a part without lots ends where the one before it does
        for part in 1..heads.parts.len() {
            heads.parts[part] = heads.parts[part].max(heads.parts[part - 1]);
        }
        heads
    }

    /// Whether the source has none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The part a lot number lies in; never falls as lots rise, whatever the rounding.
    fn part(&self, lot: i64) -> usize {
        let first = self.sorted.first().map_or(0, |h| h.lot);
        ((lot.saturating_sub(first) as f64 * self.scale) as usize).min(self.parts.len().saturating_sub(2))
    }

    /// The head of `lot` as it stood before, and a note that the file holds the lot with this version.
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

    /// Notes that the file at hand holds the lot in a record that cannot be read: the lot is present, its version unknown.
    pub fn note_unreadable(&mut self, lot: i64) {
        match self.find(lot) {
            Some(head) => head.flags |= UNREADABLE,
            None => self.headless_unreadable.push(lot),
        }
    }

    /// Returns the lots without a head that the file at hand holds in records that cannot be read.
    pub fn headless_unreadable(&self) -> Vec<i64> {
        self.headless_unreadable.clone()
    }

    /// Returns the lots that stood in no newer file and that the file at hand holds only in records that cannot be read.
    pub fn back_unreadable(&self) -> Vec<i64> {
        let back = |h: &&Head| h.absent() && h.flags & (SEEN | UNREADABLE) == UNREADABLE;
        self.sorted.iter().filter(back).map(|h| h.lot).collect()
    }

    /// Lots not seen: those that stood in the newest file until now, and those already absent but in no complete file yet.
    /// One whose record cannot be read is seen.
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
        // the same lot in a record that can be read decides
        let before = heads.see(3, Uuid::from_u128(3)).unwrap();
        assert!(before.absent() && !before.again());
        assert_eq!(heads.back_unreadable(), [4]);
    }
}
