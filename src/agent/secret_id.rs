//! Reports the secret_id of this pod: the operator destroys one that no pod has any more.

use std::path::Path;
use std::time::Duration;

use super::report::Reporter;
use crate::contract::pod::{SECRET_ID_ACCESSOR, SECRET_ID_DIR};

/// Interval between two reads of the mounted file. The kubelet updates it within a minute or two.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reports its accessor from now on.
pub async fn follow(reporter: Reporter) {
    let file = Path::new(SECRET_ID_DIR).join(SECRET_ID_ACCESSOR);
    loop {
        let accessor = tokio::fs::read_to_string(&file).await.ok().map(|text| text.trim().to_owned());
        reporter.update(|report| report.secret_id_accessor = accessor);
        tokio::time::sleep(INTERVAL).await;
    }
}
