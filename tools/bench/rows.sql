-- The rows of the benchmark; rows.py fills in the numbers between braces.
-- An id is made of a kind and a number, so that the load generator can compute it.

CREATE FUNCTION pg_temp.id(kind int, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN (lpad(to_hex(kind), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid;

INSERT INTO users
    (id, email, email_key, hashed_password, full_name, is_active, is_superuser, has_second_factor,
     rework_available, created_at, updated_at)
SELECT pg_temp.id({USER}, n), 'user' || n || '@bench.example', 'user' || n || '@bench.example', '!', 'User ' || n,
    true, n = {superuser}, false, 0, now(), now()
FROM generate_series(1, {superuser}) n;

INSERT INTO token_families (id, user_id, expires_at, last_used_at, created_at, updated_at)
SELECT pg_temp.id({SESSION}, n), pg_temp.id({USER}, n), now() + interval '1 day', now(), now(), now()
FROM generate_series(1, {superuser}) n;

INSERT INTO organizations (id, name, slug, created_at, updated_at)
SELECT pg_temp.id({ORGANIZATION}, n), 'Organization ' || n, 'bench-' || n, now(), now()
FROM generate_series(1, {organizations}) n;

-- One owner per organization, and a viewer in the first one.
INSERT INTO memberships (id, organization_id, user_id, role, provider_only, created_at, updated_at)
SELECT pg_temp.id({MEMBERSHIP}, n), pg_temp.id({ORGANIZATION}, (n - 1) % {organizations} + 1), pg_temp.id({USER}, n),
    CASE WHEN n = {viewer} THEN 'viewer' ELSE 'owner' END, false, now(), now()
FROM generate_series(1, {viewer}) n;

INSERT INTO media_resources
    (id, owner_id, organization_id, content_hash, extension, content_type, file_size, variant_bytes, width, height,
    has_alpha, public, created_at, updated_at)
SELECT pg_temp.id({MEDIA}, o * {photos} + n), pg_temp.id({USER}, o), pg_temp.id({ORGANIZATION}, o),
    md5(o || '/' || n), 'jpg', 'image/jpeg', 200000, 0, 1200, 1600, false, false, now(), now()
FROM generate_series(1, {active}) o, generate_series(0, {photos} - 1) n;

-- One published image per organization that receives requests: its first photo.
INSERT INTO generations
    (id, owner_id, organization_id, generation_type, generation_strategy, batch_size, inputs, status, revision, priority,
    progress, attempts, fallen_back, remote_steps, remote_failures, cost_credits, created_at, updated_at)
SELECT pg_temp.id({GENERATION}, o), pg_temp.id({USER}, o), pg_temp.id({ORGANIZATION}, o), 'BASE', 'GENERATE', 1, '{{}}',
    'completed', 0, 0, 100, 1, false, 0, 0, 0, now(), now()
FROM generate_series(1, {active}) o;

INSERT INTO predictions
    (id, owner_id, organization_id, generation_id, media_id, index, status, width, height, content_type, file_size,
    content_hash, seed, quality, provenance, compliance, warnings, created_at, updated_at)
SELECT pg_temp.id({PREDICTION}, o), pg_temp.id({USER}, o), pg_temp.id({ORGANIZATION}, o), pg_temp.id({GENERATION}, o),
    pg_temp.id({MEDIA}, o * {photos}), 0, 'approved', 1200, 1600, 'image/jpeg', 200000, md5(o || '/0'), 1, '{{}}',
    '{{}}', '[]', '[]', now(), now()
FROM generate_series(1, {active}) o;

CREATE TEMPORARY VIEW numbered AS
SELECT n, o, CASE WHEN o <= {active} THEN pg_temp.id({MEDIA}, o * {photos} + n / {organizations} % {photos}) END
    AS photo, timestamptz '2026-01-01' + n * interval '1 second' AS moment
FROM (SELECT n, (n - 1) % {organizations} + 1 AS o FROM generate_series(1, {rows}) n) AS numbers;

INSERT INTO products
    (id, owner_id, organization_id, sku, name, description, category, gender, materials, color, cover_media_id, state,
    public, metadata, created_at, updated_at)
SELECT pg_temp.id({PRODUCT}, n), pg_temp.id({USER}, o), pg_temp.id({ORGANIZATION}, o), 'SKU-' || n,
    'Linen wrap dress ' || n, 'A wrap dress of washed linen, cut on the bias, with pockets in the side seams.',
    'dresses', 'FEMALE', '100% linen', 'sand', photo, 'READY', false, '{{}}', moment, moment
FROM numbered ORDER BY n;

INSERT INTO product_images
    (id, owner_id, organization_id, product_id, media_id, type, position, created_at, updated_at)
SELECT pg_temp.id({IMAGE}, n), pg_temp.id({USER}, o), pg_temp.id({ORGANIZATION}, o), pg_temp.id({PRODUCT}, n),
    photo, 'front', 1, moment, moment
FROM numbered WHERE photo IS NOT NULL ORDER BY n;
