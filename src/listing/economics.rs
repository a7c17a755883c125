//! The earnings of a listing, in decimals.
//!
//! The names are those of the documents and must not change: a name without VAT contains `ex_vat`. Intermediate results
//! are not rounded. [`round_to_cents`] rounds values that are displayed or stored. Two results leave a choice to the
//! caller: the referral fee is a share of the price without VAT, and the break-even price uses the fees at the current
//! price. [`break_even_with_referral_inc_vat`] lets the fees follow the price.

use rust_decimal::{Decimal, RoundingStrategy};

/// Default referral fee of the marketplace, used if the fees are unknown: 15 % of the price without VAT.
const REFERRAL_RATE: Decimal = Decimal::from_parts(15, 0, 0, false, 2);
/// Fee added if the marketplace ships.
const FULFILMENT_FEE: Decimal = Decimal::from_parts(250, 0, 0, false, 2);
/// Fee added for media.
const MEDIA_CLOSING_FEE: Decimal = Decimal::from_parts(50, 0, 0, false, 2);
/// The categories that count as media.
const MEDIA_CATEGORIES: &[&str] = &["Books", "Music", "Video", "DVD", "Software"];

/// Costs of one unit, without VAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingCosts {
    /// Cost of the active bill of materials.
    pub bom: Decimal,
    /// Shipping cost from `listing_cost_overrides`, like the next three.
    pub shipping: Decimal,
    /// Cost of boxes and tape.
    pub packaging: Decimal,
    /// Labour cost.
    pub handling: Decimal,
    /// All other costs.
    pub other: Decimal,
    /// Fees of the marketplace.
    pub amazon_fees: Decimal,
}

/// Earnings of one unit, not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListingEconomics {
    /// Price without VAT.
    pub price_ex_vat: Decimal,
    /// Sum of all costs.
    pub total_cost_ex_vat: Decimal,
    /// Revenue, equal to the price without VAT.
    pub net_revenue_ex_vat: Decimal,
    /// Revenue minus costs.
    pub profit_ex_vat: Decimal,
    /// Profit as a share of net revenue, or 0 without revenue.
    pub margin: Decimal,
    /// Price with VAT at which the profit is zero, with these fees.
    pub break_even_price_inc_vat: Decimal,
}

/// Returns the amount rounded to the cent, half away from zero.
pub fn round_to_cents(amount: Decimal) -> Decimal {
    // Removes the sign that a rounded -0.001 would have.
    let rounded = amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    if rounded.is_zero() { Decimal::ZERO } else { rounded }
}

/// Returns the price without VAT, or None for a rate of -1 or less.
pub fn price_ex_vat(price_inc_vat: Decimal, vat_rate: Decimal) -> Option<Decimal> {
    let divisor = Decimal::ONE.checked_add(vat_rate)?;
    if divisor <= Decimal::ZERO {
        return None;
    }
    price_inc_vat.checked_div(divisor)
}

/// Returns the estimated fees if the real ones are unknown: a share of the price without VAT, plus a fee if the
/// marketplace ships, plus a fee for media. Returns None if the sum is out of range.
pub fn estimated_fees_ex_vat(price_ex_vat: Decimal, fba: bool, category: Option<&str>) -> Option<Decimal> {
    let mut fees = price_ex_vat.checked_mul(REFERRAL_RATE)?;
    if fba {
        fees = fees.checked_add(FULFILMENT_FEE)?;
    }
    if category.is_some_and(|category| MEDIA_CATEGORIES.contains(&category)) {
        fees = fees.checked_add(MEDIA_CLOSING_FEE)?;
    }
    Some(fees)
}

/// Returns the earnings of a listing. Returns None if a number is out of range, which no amount in the database
/// reaches, or if the VAT rate is -1 or less.
pub fn compute_economics(price_inc_vat: Decimal, vat_rate: Decimal, costs: &ListingCosts) -> Option<ListingEconomics> {
    let price_ex_vat = price_ex_vat(price_inc_vat, vat_rate)?;
    let ListingCosts { bom, shipping, packaging, handling, other, amazon_fees } = *costs;
    let total_cost_ex_vat = checked_sum(&[bom, shipping, packaging, handling, other, amazon_fees])?;
    let profit_ex_vat = price_ex_vat.checked_sub(total_cost_ex_vat)?;
    let margin = if price_ex_vat > Decimal::ZERO { profit_ex_vat.checked_div(price_ex_vat)? } else { Decimal::ZERO };
    Some(ListingEconomics {
        price_ex_vat,
        total_cost_ex_vat,
        net_revenue_ex_vat: price_ex_vat,
        profit_ex_vat,
        margin,
        break_even_price_inc_vat: total_cost_ex_vat.checked_mul(Decimal::ONE.checked_add(vat_rate)?)?,
    })
}

/// Returns the price with VAT at which the profit is zero if the referral fee follows the price. Returns None for a
/// referral rate of 1 or more.
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

/// Returns the sum, or None on overflow.
pub(super) fn checked_sum(amounts: &[Decimal]) -> Option<Decimal> {
    amounts.iter().try_fold(Decimal::ZERO, |sum, amount| sum.checked_add(*amount))
}
