//! The 59 columns of the feed, by their names of 2025/26 and in their order.
//!
//! Code names a column by this enum and never by its position: the feed has had 45, 49, 56 and 59 columns, and
//! [`Header`](super::header::Header) knows where in a given file each of them is.

macro_rules! columns {
    ($($variant:ident = $name:literal,)*) => {
        /// A column of the feed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Column { $(#[doc = concat!("`", $name, "`")] $variant,)* }

        impl Column {
            /// All columns in the feed's order.
            pub const ALL: [Column; [$($name),*].len()] = [$(Column::$variant),*];

            /// The name in the feed's header.
            pub const fn name(self) -> &'static str {
                match self { $(Column::$variant => $name,)* }
            }
        }
    };
}

columns! {
    Id = "Id",
    YardNumber = "Yard number",
    YardName = "Yard name",
    SaleDate = "Sale Date M/D/CY",
    DayOfWeek = "Day of Week",
    SaleTime = "Sale time (HHMM)",
    TimeZone = "Time Zone",
    ItemNumber = "Item#",
    LotNumber = "Lot number",
    VehicleType = "Vehicle Type",
    Year = "Year",
    Make = "Make",
    ModelGroup = "Model Group",
    ModelDetail = "Model Detail",
    BodyStyle = "Body Style",
    Color = "Color",
    DamageDescription = "Damage Description",
    SecondaryDamage = "Secondary Damage",
    TitleState = "Sale Title State",
    TitleType = "Sale Title Type",
    HasKeys = "Has Keys-Yes or No",
    LotConditionCode = "Lot Cond. Code",
    Vin = "VIN",
    Odometer = "Odometer",
    OdometerBrand = "Odometer Brand",
    RetailValue = "Est. Retail Value",
    RepairCost = "Repair cost",
    Engine = "Engine",
    Drive = "Drive",
    Transmission = "Transmission",
    FuelType = "Fuel Type",
    Cylinders = "Cylinders",
    RunsDrives = "Runs/Drives",
    SaleStatus = "Sale Status",
    HighBid = "High Bid =non-vix,Sealed=Vix",
    SpecialNote = "Special Note",
    LocationCity = "Location city",
    LocationState = "Location state",
    LocationZip = "Location ZIP",
    LocationCountry = "Location country",
    CurrencyCode = "Currency Code",
    ImageThumbnail = "Image Thumbnail",
    CreateDateTime = "Create Date/Time",
    GridRow = "Grid/Row",
    MakeOfferEligible = "Make-an-Offer Eligible",
    BuyItNowPrice = "Buy-It-Now Price",
    ImageUrl = "Image URL",
    Trim = "Trim",
    LastUpdatedTime = "Last Updated Time",
    Rentals = "Rentals",
    Wholesale = "Wholesale",
    SellerName = "Seller Name",
    OffsiteAddress = "Offsite Address1",
    OffsiteState = "Offsite State",
    OffsiteCity = "Offsite City",
    OffsiteZip = "Offsite Zip",
    SaleLight = "Sale Light",
    AutoGrade = "AutoGrade",
    Announcements = "Announcements",
}

impl Column {
    /// Without these a row has no identity or no place in time: a file that lacks one is refused.
    pub const KEYS: [Column; 3] = [Column::LotNumber, Column::Vin, Column::LastUpdatedTime];
    /// How many there are.
    pub const COUNT: usize = Column::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feed_has_59_columns_and_each_stands_at_its_own_number() {
        assert_eq!(Column::COUNT, 59);
        for (i, column) in Column::ALL.into_iter().enumerate() {
            assert_eq!(column as usize, i);
        }
        assert_eq!(Column::Vin as usize, 22);
        assert_eq!(Column::LastUpdatedTime as usize, 48);
    }
}
