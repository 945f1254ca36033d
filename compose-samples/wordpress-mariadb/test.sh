# Sourced by ../test.
password=correct-horse-battery-staple

set_up() {
    says 'Success' fetch '/wp-admin/install.php?step=2' \
        --data-urlencode 'weblog_title=A blog in a container' --data 'user_name=writer' \
        --data "admin_password=$password" --data "admin_password2=$password" --data 'pw_weak=1' \
        --data-urlencode 'admin_email=writer@example.org' --data 'blog_public=0' --data 'Submit=Install'
}

# PASSWORD TITLE TEXT, as a blog client does.
publish() {
    fetch /xmlrpc.php --header 'Content-Type: text/xml' --data "<?xml version='1.0'?>
<methodCall><methodName>metaWeblog.newPost</methodName><params>
<param><value>1</value></param><param><value>writer</value></param><param><value>$1</value></param>
<param><value><struct>
<member><name>title</name><value>$2</value></member>
<member><name>description</name><value>$3</value></member>
</struct></value></param><param><value><boolean>1</boolean></value></param></params></methodCall>"
}

check "up -d --wait" compose up -d --wait || return
# Running is not yet answering: its files are still being copied into the volume.
check "the first visit leads to the set-up" eventually 120 says 'WordPress' fetch '/wp-admin/install.php' || return
check "WordPress is set up" set_up
check "the blog answers" says 'A blog in a container' fetch /
check "a post is published" says '<string>' publish "$password" 'First post' 'Written over XML-RPC.'
check "a wrong password is refused" says '<int>403</int>' publish wrong 'Second post' 'Not written.'
check "the post is on the front page" says 'First post' fetch /
check "log in at wp-login.php" says 'wordpress_logged_in' fetch /wp-login.php --output /dev/null --dump-header - \
    --cookie 'wordpress_test_cookie=WP%20Cookie%20check' --data "log=writer&pwd=$password&testcookie=1"
check "the database has the post" says 'First post' compose exec -T db sh -c \
    'mariadb -h 127.0.0.1 -u "$MYSQL_USER" -p"$MYSQL_PASSWORD" "$MYSQL_DATABASE" -e "SELECT post_title FROM wp_posts"'
check "a file of its own in the volume" compose exec -T -u www-data wordpress \
    sh -c 'echo from the volume >wp-content/note.txt'
check "Apache serves it" says 'from the volume' fetch /wp-content/note.txt
check "restart" compose restart -t 5
check "the post survives the restart" eventually 40 says 'First post' fetch /
check "down" compose down -t 5
check "up -d --wait again" compose up -d --wait
check "the post survives down and up" eventually 40 says 'First post' fetch /
check "the file does too" says 'from the volume' fetch /wp-content/note.txt
