        // A token lasts as long as its tab: a reload keeps it, another tab does not see it, and closing the tab forgets it.
        plugins: [() => {
            const KEY = "csrd-authorization";
            const kept = () => JSON.parse(sessionStorage.getItem(KEY) || "{}");
            const keep = (authorized) => sessionStorage.setItem(KEY, JSON.stringify(authorized));
            return {
                statePlugins: {
                    auth: {
                        wrapActions: {
                            authorize: (original) => (added) => {
                                keep({ ...kept(), ...added });
                                return original(added);
                            },
                            logout: (original) => (names) => {
                                keep(Object.fromEntries(Object.entries(kept()).filter(([name]) => !names.includes(name))));
                                return original(names);
                            },
                        },
                    },
                    configs: {
                        wrapActions: {
                            loaded: (original, system) => (...nothing) => {
                                system.authActions.authorize(kept());
                                return original(...nothing);
                            },
                        },
                    },
                },
            };
        }],
