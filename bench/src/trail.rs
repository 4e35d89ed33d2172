//! A trail of one shard, with what a gateway's sealer does on a thread of its own.

use lockgate::audit::{Keeper, Release, RingOptions, SealerOptions, SegmentWriter, segment};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENTS_PER_SHARD: u32 = 4;

pub struct Trail {
    pub writer: SegmentWriter,
    keeper: Keeper,
    data_dir: PathBuf,
}

impl Trail {
    /// `now_us`: Unix microseconds.
    pub fn open(data_dir: &Path, now_us: i64) -> io::Result<Self> {
        let ring = RingOptions {
            data_dir: data_dir.to_owned(),
            shard: 0,
            segment_bytes: SEGMENT_BYTES,
            segments_per_shard: SEGMENTS_PER_SHARD,
        };
        let (mut writer, _) = SegmentWriter::open(&ring, now_us)?;
        if !writer.use_stage(lockgate::shard::map)? {
            eprintln!("this file system allows no stage: each round is written");
        }
        let keeper = Keeper::new(SealerOptions {
            data_dir: data_dir.to_owned(),
            shards: 1,
            segment_bytes: SEGMENT_BYTES,
            segments_per_shard: SEGMENTS_PER_SHARD,
            release: Release::Sealed,
        });
        Ok(Self { writer, keeper, data_dir: data_dir.to_owned() })
    }

    /// Prepares the next segments. Nobody keeps what is full; the two newest stay, because the writer has them open, and a file's blocks are
    /// freed by whoever closes it last (a gateway's sealer makes later segments of what leaves the ring, and frees nothing).
    pub fn keep(&mut self) -> io::Result<()> {
        self.keeper.look()?;
        let mut files = self.files()?;
        files.retain(|file| file.archived.is_some());
        files.iter().rev().skip(2).try_for_each(|file| fs::remove_file(&file.path))
    }

    /// Has what was written put on stable storage, as a gateway's kernel does every commit interval: who seals a segment finds little
    /// left to do.
    pub fn sync(&self) -> io::Result<()> {
        self.files()?.iter().try_for_each(|file| fs::File::open(&file.path)?.sync_data())
    }

    fn files(&self) -> io::Result<Vec<segment::SegmentFile>> {
        Ok(segment::list(&self.data_dir)?.remove(&0).unwrap_or_default().into_values().collect())
    }
}
