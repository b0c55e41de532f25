/* Who may log in. */
struct account {
	char name[16];
	char password[16];
};

enum { MOST_ACCOUNTS = 64 };
extern struct account accounts[MOST_ACCOUNTS];
extern int account_count;

/* Opens an account, or gives one a new password. */
int open_account(const char *name, const char *password);

/* What comes of an attempt to log in. */
enum login { WRONG, WELCOME, LOCKED };
enum login login(const char *name, const char *password);
