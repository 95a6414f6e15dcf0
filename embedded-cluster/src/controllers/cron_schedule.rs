//! The five fields of a cron schedule, as robfig/cron's standard parser reads them.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Nothing further ahead is looked for: a schedule such as 30 February never comes.
const HORIZON_YEARS: i64 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    Fields(Box<Fields>),
    /// `@every 90s`.
    Every(Duration),
}

/// One bit for each value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// `*` in one of the two day fields means that the other alone decides.
    any_day: bool,
    any_weekday: bool,
}

/// # Errors
/// What is wrong with the schedule.
pub(crate) fn check_schedule(text: &str) -> Result<(), String> {
    Schedule::parse(text).map(drop)
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// # Errors
    /// What is wrong, for the event that says so.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => text,
        };
        if let Some(every) = text.strip_prefix("@every ") {
            let every: SignedDuration = every.parse().map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            return Duration::try_from(every)
                .ok()
                .filter(|d| !d.is_zero())
                .map(Self::Every)
                .ok_or_else(|| format!("empty interval: {text}"));
        }
        if fields.starts_with('@') {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        };
        let weekdays = field(weekday, 0, 7, &WEEKDAYS, 0)?;
        Ok(Self::Fields(Box::new(Fields {
            minute: field(minute, 0, 59, &[], 0)?,
            hour: field(hour, 0, 23, &[], 0)?,
            day: field(day, 1, 31, &[], 0)?,
            month: field(month, 1, 12, &MONTHS, 1)?,
            // 7 is Sunday too.
            weekday: weekdays | (weekdays >> 7 & 1),
            any_day: is_any(day),
            any_weekday: is_any(weekday),
        })))
    }

    /// The first time after `after`.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => Some(after + SignedDuration::try_from(*every).ok()?),
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = after.to_zoned(zone.clone());
        let mut at = start.datetime().with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let end = start.datetime().checked_add(HORIZON_YEARS.years()).ok()?;
        let has = |set: u64, value: i8| u32::try_from(value).is_ok_and(|bit| set >> bit & 1 == 1);
        while at < end {
            if !has(self.month, at.month()) {
                at = at.first_of_month().start_of_day().checked_add(1.month()).ok()?;
            } else if !self.day_fits(at.day(), at.weekday().to_sunday_zero_offset()) {
                at = at.start_of_day().checked_add(1.day()).ok()?;
            } else if !has(self.hour, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
            } else if !has(self.minute, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return zone.to_timestamp(at).ok();
            }
        }
        None
    }

    fn day_fits(&self, day: i8, weekday: i8) -> bool {
        let has = |set: u64, value: i8| u32::try_from(value).is_ok_and(|bit| set >> bit & 1 == 1);
        let (by_day, by_weekday) = (has(self.day, day), has(self.weekday, weekday));
        if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday }
    }
}

fn is_any(field: &str) -> bool {
    field.split(',').any(|part| part.starts_with('*') || part.starts_with('?'))
}

/// A list of values, ranges and steps; names count from `first_name`.
fn field(text: &str, low: u32, high: u32, names: &[&str], first_name: usize) -> Result<u64, String> {
    let value = |text: &str| -> Result<u32, String> {
        let by_name = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(position) = by_name {
            return u32::try_from(position + first_name).map_err(|error| error.to_string());
        }
        text.parse().map_err(|_| format!("failed to parse int from {text}"))
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| format!("failed to parse int from {step}: {text}"))?)),
            None => (part, None),
        };
        let (first, last) = if range == "*" || range == "?" {
            (low, if high == 7 { 6 } else { high })
        } else if let Some((first, last)) = range.split_once('-') {
            (value(first)?, value(last)?)
        } else {
            let one = value(range)?;
            (one, if step.is_some() { high } else { one })
        };
        if first < low {
            return Err(format!("beginning of range ({first}) below minimum ({low}): {text}"));
        }
        if last > high {
            return Err(format!("end of range ({last}) above maximum ({high}): {text}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("step of range should be a positive number: {text}"));
        }
        let mut at = first;
        while at <= last {
            set |= 1 << at;
            at += step;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        schedule.next(after.parse().expect("a time"), &TimeZone::UTC).expect("a time").to_string()
    }

    #[test]
    fn the_next_time_follows_the_fields() {
        let after = "2026-11-21T10:17:30Z";
        for (schedule, expected) in [
            ("* * * * *", "2026-11-21T10:18:00Z"),
            ("*/5 * * * *", "2026-11-21T10:20:00Z"),
            ("0 * * * *", "2026-11-21T11:00:00Z"),
            ("@hourly", "2026-11-21T11:00:00Z"),
            ("30 2 * * *", "2026-11-22T02:30:00Z"),
            ("0 9-17/4 * * mon-fri", "2026-11-23T09:00:00Z"),
            ("0 0 1 jan *", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("0 0 13 * 5", "2026-11-27T00:00:00Z"),
            ("0 0 * * 7", "2026-11-22T00:00:00Z"),
            ("@every 90s", "2026-11-21T10:19:00Z"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Schedule::parse("* * *").expect_err("refused"), "expected exactly 5 fields, found 3: [* * *]");
        assert!(Schedule::parse("61 * * * *").is_err());
        assert!(Schedule::parse("*/0 * * * *").is_err());
        assert!(Schedule::parse("@sometimes").is_err());
        let never = Schedule::parse("0 0 30 2 *").expect("a schedule");
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
