//! Writes the seeds of a target of libFuzzer into a folder: `seeds TARGET FOLDER`.

use std::path::Path;

use sandhog_fuzz_bodies::seeds;

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, target, folder] = words.as_slice() else {
        return Err(std::io::Error::other("usage: seeds TARGET FOLDER"));
    };
    let Some(seeds) = seeds(target) else {
        return Err(std::io::Error::other(format!("unknown target {target:?}")));
    };
    for (number, bytes) in seeds.iter().enumerate() {
        std::fs::write(Path::new(folder).join(format!("seed-{number}")), bytes)?;
    }
    Ok(())
}
