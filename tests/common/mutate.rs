//! Damaged inputs, the same in every run.

/// How many of each input: the environment variable MUTANTS, or `usual`.
pub fn mutants_each(usual: u64) -> u64 {
    std::env::var("MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }
}

/// One to four small damages.
pub fn mutated(file: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(bytes.len());
        let end = (at + 1 + dice.below(24)).min(bytes.len());
        match dice.below(7) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff][dice.below(6)],
            2 => bytes[at] = bytes[at].wrapping_add(1),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(end),
            // A varint as large as one can be.
            _ => {
                bytes.splice(at..at, [0xff; 9].into_iter().chain([1]));
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}
