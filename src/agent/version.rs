//! The major version of the programs that run this instance, which its data decides.

use std::path::Path;

use super::desired::{self, DesiredState};
use crate::contract::pod::PGDATA;
use crate::postgres::servers;

/// Resolves when this instance was started for another major version than the one that it has to clone: a replica does
/// not know it before the leader has restored or adopted its data.
pub async fn is_another(started_for: u16, mut state: DesiredState) {
    while !is_outdated(started_for, desired::first(&mut state).await.major(), servers::major_of(Path::new(PGDATA))) {
        desired::changed(&mut state).await;
    }
}

/// Data of the version that runs is never left for what the operator says.
fn is_outdated(started_for: u16, desired: u16, data: Option<u16>) -> bool {
    desired != started_for && data != Some(started_for)
}

#[cfg(test)]
mod tests {
    use super::is_outdated;

    #[test]
    fn only_an_instance_without_data_of_its_version_starts_again() {
        assert!(is_outdated(18, 17, None), "it waits for a clone of a restored database");
        assert!(is_outdated(18, 17, Some(17)), "it has the clone");
        assert!(!is_outdated(17, 18, Some(17)), "the data decides");
        assert!(!is_outdated(17, 17, None));
    }
}
