-- The base has no way back: its tables hold the listings and the settings, and mostly were there before us.
do $$
begin
  raise exception 'the base stays, since it holds the listings and settings: drop its schema if you mean it';
end
$$;
