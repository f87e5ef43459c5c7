/// A number with three significant digits, without exponent and trailing zeros.
pub fn significant(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let magnitude = number.abs().log10().floor() as i32;
    let decimals = usize::try_from(2 - magnitude).unwrap_or(0);
    let text = format!("{number:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.000_312_4, "0.000312"),
            (0.07, "0.07"),
            (1.2345, "1.23"),
            (12.345, "12.3"),
            (100.0, "100"),
            (1234.5, "1234"),
            (-0.25, "-0.25"),
        ] {
            assert_eq!(significant(number), text);
        }
    }
}
