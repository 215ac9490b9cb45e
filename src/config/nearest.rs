//! The known name that an unknown one probably meant.

/// The candidate closest to `unknown`, if any is close enough to be worth naming: the same last
/// part in another section, or few letters apart.
pub(super) fn nearest<'a>(unknown: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = (unknown.len() / 3).max(2);
    candidates
        .map(|candidate| (distance(unknown, candidate), candidate))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters apart; the right name in the wrong section counts as one.
fn distance(unknown: &str, candidate: &str) -> usize {
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let letters = strsim::damerau_levenshtein(unknown, candidate);
    if last(unknown) == last(candidate) { letters.min(1) } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typos_and_wrong_sections_and_no_nonsense() {
        let known = ["listen", "client.insecure", "client.ping_interval", "rooms.idle_timeout"];
        let near = |unknown| nearest(unknown, known.into_iter());
        assert_eq!(near("lisen"), Some("listen"));
        assert_eq!(near("client.ping_intervall"), Some("client.ping_interval"));
        assert_eq!(near("insecure"), Some("client.insecure"));
        assert_eq!(near("idle_timeout"), Some("rooms.idle_timeout"));
        assert_eq!(near("zzz"), None);
    }
}
