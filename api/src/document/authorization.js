        // A pasted token lasts as long as its tab: a reload keeps it, another tab does not see it, and closing the tab forgets it.
        plugins: [() => ({
            afterLoad({ authActions, authSelectors, getStore }) {
                const KEY = "csrd-authorized";
                authActions.restoreAuthorization({ authorized: JSON.parse(sessionStorage.getItem(KEY) ?? "{}") });
                let kept = authSelectors.authorized();
                getStore().subscribe(() => {
                    const authorized = authSelectors.authorized();
                    if (authorized !== kept) {
                        kept = authorized;
                        sessionStorage.setItem(KEY, JSON.stringify(authorized));
                    }
                });
            },
        })],
