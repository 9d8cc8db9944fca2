// A phone made of SIP.js, for a page, as phone.js is one of JsSIP.
'use strict';
const {MessagerEventTypes, Messager, Registerer, RegistererState, UserAgent} = require('sip.js');
