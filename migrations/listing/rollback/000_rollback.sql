-- The base has no rollback: its tables contain the listings and the settings, and most existed before.
do $$
begin
  raise exception 'migration 000_base cannot be rolled back'
    using detail = 'Its tables contain the listings and settings.',
      hint = 'Drop the schema to delete them.';
end
$$;
