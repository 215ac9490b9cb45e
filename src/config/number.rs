//! Kinds with a range: counts, sizes in bytes, and durations.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::kind::{Flaw, Kind, Literal, quoted};

/// A whole number.
pub(super) struct Count(pub(super) RangeInclusive<u64>);

/// A whole number; 0 means none.
pub(super) struct CountOrNone(pub(super) RangeInclusive<u64>);

/// A number of bytes, with or without a binary unit.
pub(super) struct Bytes(pub(super) RangeInclusive<u64>);

/// A duration.
pub(super) struct Time(pub(super) RangeInclusive<Duration>);

/// A duration; zero means none and needs not be in the range.
pub(super) struct TimeOrNone(pub(super) RangeInclusive<Duration>);

impl<T: TryFrom<u64> + Display> Kind<T> for Count {
    fn read(&self, literal: Literal<'_>) -> Result<T, Flaw> {
        let number =
            number(literal).ok_or_else(|| literal.is_not("a whole number such as 100, without quotes"))?;
        match T::try_from(number) {
            Ok(count) if self.0.contains(&number) => Ok(count),
            _ => Err(out_of(&self.0, number)),
        }
    }

    fn show(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }

    fn range(&self) -> String {
        shown_range(&self.0)
    }
}

impl Kind<Option<usize>> for CountOrNone {
    fn read(&self, literal: Literal<'_>) -> Result<Option<usize>, Flaw> {
        debug_assert!(self.0.contains(&0), "none could not be written");
        Count(self.0.clone()).read(literal).map(|count| Some(count).filter(|count| *count > 0))
    }

    fn show(&self, value: &Option<usize>) -> Option<String> {
        Some(value.unwrap_or(0).to_string())
    }

    fn again(&self, value: &Option<usize>) -> Result<Option<usize>, Flaw> {
        match value {
            None => Ok(None),
            Some(count) => Count(1..=*self.0.end()).again(count).map(Some),
        }
    }

    fn range(&self) -> String {
        shown_range(&self.0)
    }
}

impl Kind<usize> for Bytes {
    fn read(&self, literal: Literal<'_>) -> Result<usize, Flaw> {
        let number = size(literal).ok_or_else(|| {
            literal.is_not(r#"a number of bytes such as 65536, or a text such as "64KiB" or "4MiB""#)
        })?;
        match usize::try_from(number) {
            Ok(bytes) if self.0.contains(&number) => Ok(bytes),
            _ => Err(out_of(&self.0, format_args!("{number} bytes"))),
        }
    }

    fn show(&self, value: &usize) -> Option<String> {
        Some(value.to_string())
    }

    fn range(&self) -> String {
        let (min, max) = (self.0.start(), self.0.end());
        format!("{} – {}", with_unit(*min), with_unit(*max))
    }
}

impl Kind<Duration> for Time {
    fn read(&self, literal: Literal<'_>) -> Result<Duration, Flaw> {
        let time = duration(literal)?;
        if self.0.contains(&time) { Ok(time) } else { Err(out_of_time(&self.0, time)) }
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Some(quoted(&humantime::format_duration(*value).to_string()))
    }

    fn range(&self) -> String {
        shown_times(&self.0)
    }
}

impl Kind<Option<Duration>> for TimeOrNone {
    fn read(&self, literal: Literal<'_>) -> Result<Option<Duration>, Flaw> {
        match duration(literal)? {
            Duration::ZERO => Ok(None),
            time if self.0.contains(&time) => Ok(Some(time)),
            time => Err(out_of_time(&self.0, time)),
        }
    }

    fn show(&self, value: &Option<Duration>) -> Option<String> {
        Time(self.0.clone()).show(&value.unwrap_or_default())
    }

    fn again(&self, value: &Option<Duration>) -> Result<Option<Duration>, Flaw> {
        value.as_ref().map(|time| Time(self.0.clone()).again(time)).transpose()
    }

    fn range(&self) -> String {
        format!("0s, or {}", shown_times(&self.0))
    }
}

fn number(literal: Literal<'_>) -> Option<u64> {
    match literal {
        Literal::Toml(value) => {
            let integer = value.as_integer()?;
            u64::from_str_radix(integer.as_str(), integer.radix()).ok()
        }
        Literal::Text(text) => text.replace('_', "").parse().ok(),
    }
}

fn size(literal: Literal<'_>) -> Option<u64> {
    if let Some(bytes) = number(literal) {
        return Some(bytes);
    }
    let text = literal.text()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn duration(literal: Literal<'_>) -> Result<Duration, Flaw> {
    literal
        .text()
        .and_then(|text| humantime::parse_duration(text.trim()).ok())
        .ok_or_else(|| literal.is_not(r#"a duration in quotes such as "25s", "10m" or "250ms""#))
}

fn out_of<T: Display + PartialOrd>(range: &RangeInclusive<T>, got: impl Display) -> Flaw {
    debug_assert!(range.start() <= range.end(), "no value is in this range");
    Flaw::Value(format!("must be between {} and {}, got {got}", range.start(), range.end()))
}

fn out_of_time(range: &RangeInclusive<Duration>, got: Duration) -> Flaw {
    debug_assert!(range.start() <= range.end(), "no duration is in this range");
    let [min, max, got] = [*range.start(), *range.end(), got].map(humantime::format_duration);
    Flaw::Value(format!("must be between {min} and {max}, got {got}"))
}

fn shown_range(range: &RangeInclusive<u64>) -> String {
    format!("{} – {}", range.start(), range.end())
}

fn shown_times(range: &RangeInclusive<Duration>) -> String {
    let [min, max] = [*range.start(), *range.end()].map(humantime::format_duration);
    format!("{min} – {max}")
}

/// A size in the largest unit that gives a whole number.
fn with_unit(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    units
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes} B"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let size = |given| size(Literal::Text(given));
        assert_eq!(size("65536"), Some(65_536));
        assert_eq!(size("256KiB"), Some(262_144));
        assert_eq!(size("4 MiB"), Some(4 << 20));
        assert_eq!(size("1GiB"), Some(1 << 30));
        for wrong in ["", "KiB", "4MB", "-1", "1.5MiB", "99999999999999999999", "18446744073709551615GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_range_is_described_in_the_units_it_is_written_in() {
        assert_eq!(Bytes(1..=256 << 20).range(), "1 B – 256 MiB");
        assert_eq!(Time(Duration::ZERO..=Duration::from_secs(86_400)).range(), "0s – 1day");
        assert_eq!(Kind::<usize>::range(&Count(1..=64)), "1 – 64");
    }

    #[test]
    fn numbers_are_read_in_every_toml_form() {
        for (given, expected) in [("1_000", 1000), ("0x10", 16), ("0b11", 3)] {
            let value = toml::de::DeValue::parse(given).unwrap();
            assert_eq!(number(Literal::Toml(value.get_ref())), Some(expected), "{given}");
        }
    }

    #[test]
    fn a_number_too_large_for_its_type_is_out_of_range() {
        let flaw = Kind::<u32>::read(&Count(1..=256), Literal::Text("4294967297"));
        assert_eq!(flaw, Err(Flaw::Value("must be between 1 and 256, got 4294967297".to_owned())));
    }

    #[test]
    fn a_wrong_type_is_told_what_is_expected() {
        let value = toml::de::DeValue::parse("25").unwrap();
        let flaw = duration(Literal::Toml(value.get_ref())).unwrap_err();
        let expected = r#"expected a duration in quotes such as "25s", "10m" or "250ms", got the number 25"#;
        assert_eq!(flaw, Flaw::Type(expected.to_owned()));
        let negative = toml::de::DeValue::parse("-1").unwrap();
        let flaw = Kind::<u64>::read(&Count(0..=1), Literal::Toml(negative.get_ref()));
        assert!(matches!(flaw, Err(Flaw::Type(message)) if message.ends_with("got the number -1")));
    }
}
