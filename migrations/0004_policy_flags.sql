-- 0004_policy_flags
-- purpose: hide a vehicle, lot or image without deleting it
-- depends: 0003
-- rollback: yes
-- creates: public.vehicles.is_removed, public.lots.is_removed, public.images.is_removed, public.vehicles_visible_idx, public.lots_visible_idx, public.images_visible_idx

alter table public.vehicles
  add column if not exists is_removed boolean not null default false;

alter table public.lots
  add column if not exists is_removed boolean not null default false;

alter table public.images
  add column if not exists is_removed boolean not null default false;

-- Nearly every row is visible, so these indexes are as long as their tables: a first window inserts 154,000 entries
-- into each. Their keys only grow (a load appends to the last page) and never change (an update stays heap-only). They
-- serve scans of visible rows: the newest vehicles, and keyset pages of lots and images.
create index if not exists vehicles_visible_idx
  on public.vehicles (created_at)
  where is_removed = false;

create index if not exists lots_visible_idx
  on public.lots (id)
  where is_removed = false;

create index if not exists images_visible_idx
  on public.images (id)
  where is_removed = false;
