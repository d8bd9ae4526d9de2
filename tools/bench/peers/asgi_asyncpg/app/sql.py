"""The statements."""

COLUMNS = """
p.id, p.created_at, p.updated_at, p.owner_id, p.organization_id, p.sku, p.name, p.description, p.category,
p.gender, p.materials, p.color, p.brand_id, p.state, p.public, p.external_id, p.metadata, p.cover_media_id
"""
SELECT_PRODUCTS = f"""
SELECT {COLUMNS}, c.extension AS cover_extension
FROM products p LEFT JOIN media_resources c ON c.id = p.cover_media_id
"""
SELECT_PRODUCT = f"{SELECT_PRODUCTS} WHERE p.id = $1"
SELECT_PRODUCT_TO_UPDATE = f"{SELECT_PRODUCT} FOR UPDATE OF p"
SELECT_IMAGES = """
SELECT i.id, i.created_at, i.updated_at, i.product_id, i.media_id, i.type, i.position, i.alt_text, i.region,
    i.mask_media_id, m.extension, m.width, m.height, k.extension AS mask_extension
FROM product_images i
JOIN media_resources m ON m.id = i.media_id
LEFT JOIN media_resources k ON k.id = i.mask_media_id
WHERE i.product_id = ANY($1) ORDER BY i.position
"""
ORDER = "ORDER BY p.created_at DESC, p.id DESC"
SELECT_PAGE = f"{SELECT_PRODUCTS} WHERE p.organization_id = $1 {ORDER} OFFSET $2 LIMIT $3"
SELECT_PAGE_AFTER = (
    f"{SELECT_PRODUCTS} WHERE p.organization_id = $1 AND (p.created_at, p.id) < ($4, $5)"
    f" {ORDER} OFFSET $2 LIMIT $3"
)
COUNT_PRODUCTS = "SELECT count(*) FROM products WHERE organization_id = $1"
NEW = "(id, created_at, updated_at, owner_id, organization_id, sku, name, description, category, gender,"
INTO_PRODUCTS = f"INSERT INTO products AS p {NEW} materials, color, state, public, metadata)"
INSERT_PRODUCT = f"""
{INTO_PRODUCTS}
VALUES (gen_random_uuid(), now(), now(), $1, $2, $3, $4, $5, $6, $7, $8, $9, 'READY', false, '{{}}')
RETURNING {COLUMNS}, NULL AS cover_extension
"""
INSERT_PRODUCTS = f"""
{INTO_PRODUCTS}
SELECT gen_random_uuid(), clock_timestamp(), clock_timestamp(), $1, $2, item.*, 'READY', false, '{{}}'
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) AS item
RETURNING {COLUMNS}, NULL AS cover_extension
"""
UPDATE_PRODUCT = f"""
UPDATE products AS p SET updated_at = clock_timestamp(){{columns}} WHERE id = $1
RETURNING {COLUMNS},
    (SELECT extension FROM media_resources c WHERE c.id = p.cover_media_id) AS cover_extension
"""
SELECT_STORED = "SELECT fingerprint, body FROM stored_responses WHERE user_id = $1 AND key = $2"
INSERT_STORED = "INSERT INTO stored_responses (user_id, key, fingerprint, body) VALUES ($1, $2, $3, $4)"
SELECT_PUBLISHED = """
SELECT m.id, m.extension, m.content_type
FROM prediction_publications u
JOIN predictions p ON p.id = u.prediction_id
JOIN media_resources m ON m.id = p.media_id
WHERE u.token_hash = $1 AND m.content_hash = $2 AND p.status IN ('approved', 'exported')
"""
