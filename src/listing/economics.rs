//! What a listing earns, in decimals.
//!
//! The names are the documents' and frozen: everything that is without VAT says so. Nothing is rounded on the way;
//! [`money`] rounds what is shown or stored. Two results leave a choice to be made elsewhere: the referral fee is taken of
//! the price without VAT, and the break-even price takes the fees as they are at the current price
//! ([`break_even_with_referral_inc_vat`] lets them follow it).

use rust_decimal::{Decimal, RoundingStrategy};

/// Share of the price without VAT that the marketplace takes where no fees were told: 15 %.
const REFERRAL: Decimal = Decimal::from_parts(15, 0, 0, false, 2);
/// Added where the marketplace ships.
const FULFILMENT: Decimal = Decimal::from_parts(250, 0, 0, false, 2);
/// Added for media.
const CLOSING: Decimal = Decimal::from_parts(50, 0, 0, false, 2);
/// The categories of which that is.
const MEDIA: &[&str] = &["Books", "Music", "Video", "DVD", "Software"];

/// What is spent on one piece, each without VAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Of the active bill of materials.
    pub bom: Decimal,
    /// Of `listing_cost_overrides`, like the next three.
    pub shipping: Decimal,
    /// Boxes, tape.
    pub packaging: Decimal,
    /// Hands.
    pub handling: Decimal,
    /// What else there is.
    pub other: Decimal,
    /// What the marketplace takes.
    pub amazon_fees: Decimal,
}

/// What is earned on one piece. Not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Economics {
    /// Price without VAT.
    pub price_ex_vat: Decimal,
    /// All costs.
    pub total_cost_ex_vat: Decimal,
    /// The price without VAT.
    pub net_revenue_ex_vat: Decimal,
    /// What is left.
    pub profit_ex_vat: Decimal,
    /// Profit's share of net revenue; 0 where there is none.
    pub margin: Decimal,
    /// The price at which nothing is left, with these fees.
    pub break_even_price_inc_vat: Decimal,
}

/// To the cent, half away from zero.
pub fn money(amount: Decimal) -> Decimal {
    // without the sign that would be left of a rounded -0.001
    let rounded = amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    if rounded.is_zero() { Decimal::ZERO } else { rounded }
}

/// The price without VAT; none where a rate of -1 or less would divide by nothing.
pub fn price_ex_vat(price_inc_vat: Decimal, vat_rate: Decimal) -> Option<Decimal> {
    let divisor = Decimal::ONE.checked_add(vat_rate)?;
    if divisor <= Decimal::ZERO {
        return None;
    }
    price_inc_vat.checked_div(divisor)
}

/// The fees where nobody has told them: a share of the price without VAT, more where the marketplace ships, and for media.
pub fn estimated_fees_ex_vat(price_ex_vat: Decimal, fba: bool, category: Option<&str>) -> Option<Decimal> {
    let mut fees = price_ex_vat.checked_mul(REFERRAL)?;
    if fba {
        fees = fees.checked_add(FULFILMENT)?;
    }
    if category.is_some_and(|category| MEDIA.contains(&category)) {
        fees = fees.checked_add(CLOSING)?;
    }
    Some(fees)
}

/// All of it; none where a number does not fit, which no amount of the database's is large enough for.
pub fn economics(price_inc_vat: Decimal, vat_rate: Decimal, costs: &Costs) -> Option<Economics> {
    let price_ex_vat = price_ex_vat(price_inc_vat, vat_rate)?;
    let Costs { bom, shipping, packaging, handling, other, amazon_fees } = *costs;
    let total_cost_ex_vat = sum(&[bom, shipping, packaging, handling, other, amazon_fees])?;
    let profit_ex_vat = price_ex_vat.checked_sub(total_cost_ex_vat)?;
    let margin =
        if price_ex_vat > Decimal::ZERO { profit_ex_vat.checked_div(price_ex_vat)? } else { Decimal::ZERO };
    Some(Economics {
        price_ex_vat,
        total_cost_ex_vat,
        net_revenue_ex_vat: price_ex_vat,
        profit_ex_vat,
        margin,
        break_even_price_inc_vat: total_cost_ex_vat.checked_mul(Decimal::ONE.checked_add(vat_rate)?)?,
    })
}

/// The price at which nothing is left where the referral fee follows the price; none at a share of 1 or more.
pub fn break_even_with_referral_inc_vat(
    costs_without_referral: Decimal,
    referral_rate: Decimal,
    vat_rate: Decimal,
) -> Option<Decimal> {
    let kept = Decimal::ONE.checked_sub(referral_rate)?;
    if kept <= Decimal::ZERO {
        return None;
    }
    costs_without_referral.checked_div(kept)?.checked_mul(Decimal::ONE.checked_add(vat_rate)?)
}

/// Their sum, if it fits.
pub(super) fn sum(amounts: &[Decimal]) -> Option<Decimal> {
    amounts.iter().try_fold(Decimal::ZERO, |sum, amount| sum.checked_add(*amount))
}
