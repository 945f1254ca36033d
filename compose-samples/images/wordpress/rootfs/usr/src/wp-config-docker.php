<?php
function from_environment($name, $default) {
    $file = getenv($name . '_FILE');
    if ($file) {
        return rtrim(file_get_contents($file), "\r\n");
    }
    $value = getenv($name);
    return $value === false ? $default : $value;
}

define('DB_HOST', from_environment('WORDPRESS_DB_HOST', 'mysql'));
define('DB_USER', from_environment('WORDPRESS_DB_USER', 'example username'));
define('DB_PASSWORD', from_environment('WORDPRESS_DB_PASSWORD', 'example password'));
define('DB_NAME', from_environment('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('WP_DEBUG', (bool) getenv('WORDPRESS_DEBUG'));
// Everything is installed; nothing is fetched or updated behind the user's back.
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
$table_prefix = from_environment('WORDPRESS_TABLE_PREFIX', 'wp_');

require __DIR__ . '/wp-keys.php';
if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
