-- 0006_vin_normalized_ck_uidx
-- purpose: the normalisation of VINs, and the check that every vehicle satisfies it
-- depends: 0004
-- rollback: yes
-- creates: public.normalize_vin, public.vehicles.vin_normalized, vehicles_vin_normalized_format_ck, public.vehicles_vin_normalized_uidx

-- Converts to upper case first, then removes I, O and Q (ISO 3779 has none). The reverse order would leave their
-- lower-case forms in. Only ASCII letters are converted, independent of the database's locale, so that the Rust
-- function returns the same result for every string. Blanks are those of Unicode, zero-width characters and marks of
-- writing direction, as in src/auction/blank.rs. The vertical tab is written \x0b because PostgreSQL reads \v as a
-- letter. Three calls of `replace` do the work of one `regexp_replace` or `translate` at a fraction of the cost where
-- nothing is replaced. A body of one expression is inlined into the calling queries.
create or replace function public.normalize_vin(raw text)
returns text
language sql
immutable
strict
parallel safe
as $$
  select replace(replace(replace(upper(btrim(
    raw,
    E' \t\n\x0b\f\r\u0085\u00a0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c'
      '\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2066\u2067\u2068\u2069\u3000\ufeff'
  ) collate "C"), 'I', ''), 'O', ''), 'Q', '')
$$;

-- The expression is repeated instead of calling the function, because a generated column that depends on the function
-- would prevent later changes of the function.
alter table public.vehicles
  add column if not exists vin_normalized text
  generated always as (replace(replace(replace(upper(vin collate "C"), 'I', ''), 'O', ''), 'Q', '')) stored;

do $$
begin
  if not exists (
    select
    from pg_constraint
    where conrelid = 'public.vehicles'::regclass
      and conname = 'vehicles_vin_normalized_format_ck'
  ) then
    alter table public.vehicles
      add constraint vehicles_vin_normalized_format_ck
      check (vin_normalized ~ '^[A-HJ-NPR-Z0-9]{11,17}$');
  end if;
end
$$;

create unique index if not exists vehicles_vin_normalized_uidx
  on public.vehicles (vin_normalized);
