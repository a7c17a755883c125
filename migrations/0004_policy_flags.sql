-- 0004_policy_flags
-- purpose: take a vehicle, lot or picture out of sight without losing it
-- depends: 0003
-- rollback: yes
-- creates: public.vehicles.is_removed, public.lots.is_removed, public.images.is_removed, public.vehicles_visible_idx, public.lots_visible_idx, public.images_visible_idx

alter table public.vehicles
  add column if not exists is_removed boolean not null default false;

alter table public.lots
  add column if not exists is_removed boolean not null default false;

alter table public.images
  add column if not exists is_removed boolean not null default false;

-- Nearly every row is visible, so these are as long as their tables and a first window pays for 154,000 entries in
-- each. Their keys only ever grow (a load appends to the last page) and never change (an update stays heap-only);
-- they serve walks over what is visible: newest vehicles, keyset pages of lots and pictures.
create index if not exists vehicles_visible_idx
  on public.vehicles (created_at)
  where is_removed = false;

create index if not exists lots_visible_idx
  on public.lots (id)
  where is_removed = false;

create index if not exists images_visible_idx
  on public.images (id)
  where is_removed = false;
