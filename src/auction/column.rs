//! The 59 columns of the feed in order, under the names of 2025/26.
//!
//! Code refers to a column by this enum and never by position: the feed has had 45, 49, 56 and 59 columns.
//! [`Header`](super::header::FeedHeader) maps each column to its position in a given file.

macro_rules! columns {
    ($($variant:ident = $name:literal,)*) => {
        /// A column of the feed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Column { $(#[doc = concat!("`", $name, "`")] $variant,)* }

        impl Column {
            /// All columns in the feed's order.
            pub const ALL: [Column; [$($name),*].len()] = [$(Column::$variant),*];

            /// Returns the name in the feed's header.
            pub const fn name(self) -> &'static str {
                match self { $(Column::$variant => $name,)* }
            }

            /// Returns the variant's name, from which [`Column::mapping_key`] is derived.
            const fn variant_name(self) -> &'static str {
                match self { $(Column::$variant => stringify!($variant),)* }
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
    /// The columns that give a row its identity and its place in time. Every mapping requires the first two, Copart's
    /// mapping requires all three.
    pub const KEYS: [Column; 3] = [Column::LotNumber, Column::Vin, Column::LastUpdatedTime];
    /// Number of columns.
    pub const COUNT: usize = Column::ALL.len();

    /// Returns the column's key in mapping files, such as `lot_number` or `last_updated_time`.
    pub fn mapping_key(self) -> String {
        let mut key = String::new();
        for c in self.variant_name().chars() {
            if c.is_ascii_uppercase() && !key.is_empty() {
                key.push('_');
            }
            key.push(c.to_ascii_lowercase());
        }
        key
    }

    /// Returns the column with this key in mapping files.
    pub fn from_mapping_key(key: &str) -> Option<Column> {
        Column::ALL.into_iter().find(|column| column.mapping_key() == key)
    }
}

/// A set of columns, stored as one bit per column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnSet(u64);

const _: () = assert!(Column::COUNT <= u64::BITS as usize, "a column has a bit of its own");

impl ColumnSet {
    /// The empty set.
    pub const EMPTY: ColumnSet = ColumnSet(0);

    /// Returns the set of these columns.
    pub const fn from_columns(columns: &[Column]) -> ColumnSet {
        let (mut bits, mut i) = (0, 0);
        while i < columns.len() {
            bits |= 1 << columns[i] as u8;
            i += 1;
        }
        ColumnSet(bits)
    }

    /// Adds a column.
    pub fn insert(&mut self, column: Column) {
        self.0 |= 1 << column as u8;
    }

    /// Returns true if the column is in the set.
    pub const fn contains(self, column: Column) -> bool {
        self.0 & (1 << column as u8) != 0
    }

    /// Returns true if the two sets have a column in common.
    pub const fn intersects(self, other: ColumnSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns true if the set contains no column.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the columns in the feed's order.
    pub fn iter(self) -> impl Iterator<Item = Column> {
        Column::ALL.into_iter().filter(move |column| self.contains(*column))
    }

    /// Returns the set as a bit mask. Bit `n` is the feed's column `n`, counted from 0.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<Column> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = Column>>(columns: I) -> ColumnSet {
        let mut set = ColumnSet::EMPTY;
        columns.into_iter().for_each(|column| set.insert(column));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_columns_that_were_put_in_and_no_others() {
        let mut set = ColumnSet::EMPTY;
        assert!(set.is_empty() && set.iter().next().is_none());
        set.insert(Column::Announcements);
        set.insert(Column::Id);
        set.insert(Column::Id);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Column::Id, Column::Announcements]);
        assert_eq!(set, ColumnSet::from_columns(&[Column::Announcements, Column::Id]));
        assert!(set.contains(Column::Announcements) && !set.contains(Column::Vin) && !set.is_empty());
        assert!(
            set.intersects(ColumnSet::from_columns(&[Column::Id]))
                && !set.intersects(ColumnSet::from_columns(&[Column::Vin]))
        );
        assert_eq!(set.bits(), 1 << 58 | 1);
        assert_eq!(Column::ALL.into_iter().collect::<ColumnSet>().iter().count(), Column::COUNT);
    }

    #[test]
    fn the_feed_has_59_columns_and_each_stands_at_its_own_number() {
        assert_eq!(Column::COUNT, 59);
        for (i, column) in Column::ALL.into_iter().enumerate() {
            assert_eq!(column as usize, i);
        }
        assert_eq!(Column::Vin as usize, 22);
        assert_eq!(
            (Column::Vin.mapping_key(), Column::LastUpdatedTime.mapping_key()),
            ("vin".into(), "last_updated_time".into())
        );
        assert!(Column::ALL.into_iter().all(|column| Column::from_mapping_key(&column.mapping_key()) == Some(column)));
        assert_eq!(Column::LastUpdatedTime as usize, 48);
    }
}
