//! The share of a volume that WAL may take. Each limit of PostgreSQL is derived from the volume's
//! size, so that WAL alone never fills it; explicit values of a spec are checked against it.

use std::collections::BTreeMap;

use super::setting::{GB, MB, bytes, megabytes, readable};

/// The size of a WAL file, which initdb sets; PostgreSQL refuses a `min_wal_size` or `max_wal_size`
/// below two of them.
const SEGMENT: u64 = 16 * MB;

/// The bounds of WAL, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalBudget {
    /// WAL between two checkpoints.
    pub max_wal_size: u64,
    /// WAL files that are kept for reuse.
    pub min_wal_size: u64,
    /// WAL that is kept for standbys without a slot, and for `pg_rewind`.
    pub wal_keep_size: u64,
    /// WAL that is kept for a disconnected standby. Beyond it its slot is invalidated, and the
    /// standby is cloned when it returns.
    pub max_slot_wal_keep_size: u64,
}

/// The limits for a volume. From 8 GiB on, the distance of checkpoints is PostgreSQL's default, and
/// from 64 GiB on it is larger.
///
/// WAL takes at most the amount kept for a standby plus, until the next checkpoint removes the
/// rest, `max_wal_size`: three eighths of a volume from 512 MiB on.
pub fn budget(volume: u64) -> WalBudget {
    let max_wal_size = (volume / 8).clamp(2 * SEGMENT, GB).max((volume / 64).min(8 * GB));
    WalBudget {
        max_wal_size,
        min_wal_size: (max_wal_size / 2).clamp(2 * SEGMENT, 80 * MB),
        wal_keep_size: (volume / 16).clamp(SEGMENT, 128 * MB),
        max_slot_wal_keep_size: volume / 4,
    }
}

impl WalBudget {
    /// The settings and their values.
    pub fn settings(self) -> [(&'static str, String); 4] {
        [
            ("max_wal_size", megabytes(self.max_wal_size)),
            ("min_wal_size", megabytes(self.min_wal_size)),
            ("wal_keep_size", megabytes(self.wal_keep_size)),
            ("max_slot_wal_keep_size", megabytes(self.max_slot_wal_keep_size)),
        ]
    }

    /// The maximum size of WAL.
    fn most(self) -> u64 {
        let kept = self.wal_keep_size.max(self.max_slot_wal_keep_size).max(self.min_wal_size);
        self.max_wal_size.saturating_add(kept)
    }
}

/// Checks the explicit limits of a spec for a volume of this size: together with the derived ones,
/// they may take half of it.
///
/// # Errors
/// The fields, the requested and the available size, and the remedy.
pub fn check(parameters: &BTreeMap<String, String>, volume: u64) -> Result<(), String> {
    let mut asked = budget(volume);
    let mut set = Vec::new();
    for (name, bound) in [
        ("max_wal_size", &mut asked.max_wal_size),
        ("min_wal_size", &mut asked.min_wal_size),
        ("wal_keep_size", &mut asked.wal_keep_size),
        ("max_slot_wal_keep_size", &mut asked.max_slot_wal_keep_size),
    ] {
        let Some(value) = parameters.get(name) else { continue };
        // Without a limit, WAL for a disconnected standby fills the volume.
        let unbounded = name == "max_slot_wal_keep_size" && value.trim() == "-1";
        let Some(bytes) = bytes(value, MB).or(unbounded.then_some(u64::MAX)) else { continue };
        *bound = bytes;
        set.push(format!("{name} = {value}"));
    }
    if set.is_empty() || asked.most() <= volume / 2 {
        return Ok(());
    }
    let most = if asked.most() == u64::MAX { "all of the volume".to_owned() } else { readable(asked.most()) };
    Err(format!(
        "spec.postgres.parameters: with {} WAL may take {most} (max_wal_size and the largest of wal_keep_size, \
         max_slot_wal_keep_size and min_wal_size), and half of a volume of {} is its share: lower them, leave them out \
         (they follow from spec.storage.size), or raise spec.storage.size",
        set.join(", "),
        readable(volume),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_leaves_room_on_the_smallest_volume_and_is_postgresqls_default_on_a_large_one() {
        let of = |volume: u64| budget(volume).settings().map(|(_, value)| value).join(" ");
        assert_eq!(of(256 * MB), "32MB 32MB 16MB 64MB");
        assert_eq!(of(512 * MB), "64MB 32MB 32MB 128MB");
        assert_eq!(of(GB), "128MB 64MB 64MB 256MB");
        assert_eq!(of(10 * GB), "1024MB 80MB 128MB 2560MB");
        assert_eq!(of(64 * GB), "1024MB 80MB 128MB 16384MB");
        assert_eq!(of(200 * GB), "3200MB 80MB 128MB 51200MB");
        assert_eq!(of(4096 * GB), "8192MB 80MB 128MB 1048576MB");
    }

    #[test]
    fn a_budget_never_takes_half_of_its_volume_and_grows_with_it() {
        let mut before = budget(0);
        for volume in (8..=4096).map(|step| step * 32 * MB) {
            let now = budget(volume);
            assert!(now.most() <= volume / 2, "{volume}: {now:?}");
            assert!(now.min_wal_size <= now.max_wal_size && now.min_wal_size >= 2 * SEGMENT, "{now:?}");
            assert!(now.max_wal_size >= before.max_wal_size && now.wal_keep_size >= before.wal_keep_size);
            before = now;
        }
    }

    #[test]
    fn what_a_spec_sets_is_checked_against_its_volume() {
        let with = |settings: &[(&str, &str)], volume| {
            let parameters = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            check(&parameters, volume)
        };
        assert_eq!(with(&[], 256 * MB), Ok(()));
        assert_eq!(with(&[("work_mem", "1GB")], 256 * MB), Ok(()));
        assert_eq!(with(&[("max_wal_size", "2GB")], 10 * GB), Ok(()));
        assert_eq!(with(&[("max_wal_size", "much")], 10 * GB), Ok(()), "PostgreSQL reports it better");
        let refused = with(&[("max_wal_size", "1024")], GB).expect_err("a gigabyte of a gigabyte");
        assert!(refused.contains("max_wal_size = 1024") && refused.contains("1280 MB"), "{refused}");
        assert!(with(&[("wal_keep_size", "9GB")], 10 * GB).is_err());
        let refused = with(&[("max_slot_wal_keep_size", "-1")], 100 * GB).expect_err("no bound");
        assert!(refused.contains("all of the volume"), "{refused}");
    }
}
