//! Damages valid bytes at random. The same seed causes the same damage.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Maximum length of random bytes.
const MOST_NOISE: usize = 300;

/// Bytes that affect the decisions of decoders: lengths, type marks, ends.
const SHARP: [u8; 14] = [
    0, 1, 0x7f, 0x80, 0x90, 0xc0, 0xc1, 0xc6, 0xdb, 0xdd, 0xdf, 0xff, b'{', b'"',
];

/// A source of damage.
#[derive(Debug)]
pub(crate) struct Damage(StdRng);

impl Damage {
    /// Returns the source of damage for a seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Returns one of `seeds`, damaged, or sometimes random bytes.
    pub(crate) fn input(mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let chosen = seeds.choose(&mut self.0).cloned();
        let Some(mut bytes) = chosen.filter(|_| self.0.random_ratio(9, 10)) else {
            return self.noise();
        };
        for _ in 0..self.0.random_range(0..8) {
            self.hurt(&mut bytes, seeds);
        }
        bytes
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.0.random_range(0..MOST_NOISE);
        (0..length).map(|_| self.0.random()).collect()
    }

    fn hurt(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.0.random_range(0..=bytes.len());
        let sharp = SHARP.choose(&mut self.0).copied().unwrap_or_default();
        match self.0.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, sharp),
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = sharp;
                }
            }
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.0.random_range(0..8);
                }
            }
            4 => {
                let end = self.0.random_range(at..=bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let other = seeds.choose(&mut self.0).cloned().unwrap_or_default();
                let from = self.0.random_range(0..=other.len());
                let piece = other.get(from..).unwrap_or_default();
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}
